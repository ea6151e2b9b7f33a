"""What `Search` and `SimilarItems` are asked and answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from services.gateway import validation
from services.gateway.paging import PageTokens, next_offset
from services.gateway.ports import FilterPayload
from services.gateway.ranking import Ranked
from services.gateway.stages import StageTiming
from shared.errors import FieldViolation, InvalidArgumentError


class Reason(Enum):
    """What can be left out of an answer. The names are the wire's."""

    RERANKER_UNAVAILABLE = 1
    RERANKER_PARTIAL = 2
    QUERY_ENCODER_UNAVAILABLE = 3
    LEXICAL_UNSUPPORTED = 4


class Degradation(NamedTuple):
    """Something that was left out of an answer, with a message for people."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class ModelVersions:
    """The models that answered; empty where none did."""

    query_encoder: str = ""
    index: str = ""
    reranker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which page of which list. `fingerprint` identifies the list: everything that decides what is in it.

    `page_size` and `candidate_count` are as the caller wrote them, with 0 for "the default".
    """

    fingerprint: bytes
    filter_: FilterPayload | None = None
    page_size: int = 0
    page_token: str = ""
    candidate_count: int = 0

    def check(self, tokens: PageTokens, problems: list[FieldViolation]) -> int:
        """Where the page starts.

        Raises `InvalidArgumentError` with `problems` and everything wrong with the page, all at once.
        """
        problems += validation.page_problems(self.page_size, self.candidate_count)
        offset = 0
        try:
            offset = tokens.read(self.page_token, self.fingerprint)
        except InvalidArgumentError as error:
            problems += error.violations
        validation.refuse(problems)
        return offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One page of results, best first, and how it came about. `candidate_count` is what pages are cut from."""

    results: Sequence[Ranked]
    next_page_token: str
    candidate_count: int
    generation: str
    versions: ModelVersions
    timings: Sequence[StageTiming]
    degraded: Sequence[Degradation] = ()


def cut(ranked: Sequence[Ranked], page: PageRequest, offset: int, tokens: PageTokens) -> tuple[Sequence[Ranked], str]:
    """The results of the page that starts at `offset`, and the token of the next one."""
    size = page.page_size or validation.DEFAULT_PAGE_SIZE
    following = next_offset(ranked, offset, size)
    token = "" if following is None else tokens.issue(following, page.fingerprint)
    return ranked[offset : offset + size], token
