"""What `Search`, `SimilarItems` and `Recommend` are asked and answer."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol, TypeVar

from services.gateway import validation
from services.gateway.paging import PageTokens, Rest
from services.gateway.ports import PREVIOUS_GENERATION, Candidate, FilterPayload
from services.gateway.ranking import Ranked
from services.gateway.stages import Stages, StageTiming
from shared.errors import FieldViolation, InvalidArgumentError


class Reason(Enum):
    """What can be left out of an answer. The names are the wire's."""

    RERANKER_UNAVAILABLE = 1
    RERANKER_PARTIAL = 2
    QUERY_ENCODER_UNAVAILABLE = 3
    LEXICAL_UNSUPPORTED = 4
    PREVIOUS_GENERATION = 5
    PERSONALIZATION_UNAVAILABLE = 6
    COLD_START = 7


class Degradation(NamedTuple):
    """Something that was left out of an answer, with a message for people."""

    reason: Reason
    message: str


@dataclass(slots=True, kw_only=True)
class Run:
    """One request under way: where its time goes, and what its answer leaves out."""

    stages: Stages
    degraded: list[Degradation] = field(default_factory=list)

    def leave_out(self, reason: Reason, message: str) -> None:
        """Notes that something is left out, for one reason once."""
        if all(one.reason is not reason for one in self.degraded):
            self.degraded.append(Degradation(reason, message))

    def note_generation(self, degraded: Sequence[str]) -> None:
        """Notes if the index, by what it left out, answered from the generation before the live one: while a shop
        changes its model, until its encoders have the new one."""
        if PREVIOUS_GENERATION in degraded:
            self.leave_out(
                Reason.PREVIOUS_GENERATION,
                "found in the index's generation before the live one, without the items added since: the query's model "
                "is the old one",
            )


@dataclass(frozen=True, slots=True)
class ModelVersions:
    """The models that answered; empty where none did."""

    query_encoder: str = ""
    index: str = ""
    reranker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which page of which list. `fingerprint` identifies the list: everything that decides what is in it.

    `page_size` and `candidate_count` are as the caller wrote them, with 0 for "the default"; `problems` are what was
    found wrong before.
    """

    fingerprint: bytes
    filter_: FilterPayload | None = None
    page_size: int = 0
    page_token: str = ""
    candidate_count: int = 0
    problems: Sequence[FieldViolation] = ()

    def check(self, tokens: PageTokens, problems: list[FieldViolation]) -> "Page":
        """The page.

        Raises `InvalidArgumentError` with `problems` and everything wrong with the page, all at once.
        """
        problems += [*self.problems, *validation.page_problems(self.page_size, self.candidate_count)]
        rest = None
        try:
            rest = tokens.read(self.page_token, self.fingerprint)
        except InvalidArgumentError as error:
            problems += error.violations
        validation.refuse(problems)
        return Page(self, rest, tokens)


class Listing(Protocol):
    """What holds candidates."""

    @property
    def candidates(self) -> Sequence[Candidate]:
        """Each once."""


L = TypeVar("L", bound=Listing)


class Page:
    """One page of a list: the first, which any candidate may be on, or one of what is left of it."""

    def __init__(self, request: PageRequest, rest: Rest | None, tokens: PageTokens) -> None:
        self._request = request
        self._rest = rest
        self._tokens = tokens
        self.size = request.page_size or validation.DEFAULT_PAGE_SIZE
        """Results it holds at most."""

    async def retrieve(self, search: Callable[[int], Awaitable[L]], default_count: int) -> L:
        """What `search` finds when asked for as many candidates as the request says.

        Items written since the first page may stand before what is left of its list, so where some of that is not
        found, the search is made once more, as deep as searches go.
        """
        count = self._request.candidate_count or default_count
        found = await search(count)
        if self._rest is None or count == validation.MAX_CANDIDATES:
            return found
        there = {self._tokens.digest(candidate.item_id) for candidate in found.candidates}
        return found if self._rest.digests <= there else await search(validation.MAX_CANDIDATES)

    def may_hold(self, candidate: Candidate) -> bool:
        """Whether it is left: always on the first page, which draws the list up."""
        return self._rest is None or self._tokens.digest(candidate.item_id) in self._rest.digests

    def cut(self, ranked: Sequence[Ranked]) -> "Cut":
        """The first results of `ranked` that are left."""
        left = [ranking for ranking in ranked if self.may_hold(ranking.candidate)]
        shown = self._rest.shown if self._rest is not None else 0
        token = ""
        if left[self.size :]:
            # With those that were not found this time, for they may be found again: by words alone some are not.
            members = self._rest.digests if self._rest is not None else self._digests(left)
            following = members - self._digests(left[: self.size])
            token = self._tokens.issue(shown + self.size, following, self._request.fingerprint)
        return Cut(left[: self.size], token, shown + len(left), shown)

    def _digests(self, results: Iterable[Ranked]) -> frozenset[bytes]:
        return frozenset(self._tokens.digest(ranking.candidate.item_id) for ranking in results)


class Cut(NamedTuple):
    """Results of a page, the token of the next, how many items the list has, as far as they are there, and where in it
    the page starts (from 0)."""

    results: Sequence[Ranked]
    next_page_token: str
    candidate_count: int
    first_position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One page of results, best first, and how it came about. `candidate_count` is what pages are cut from,
    `first_position` where in it this one starts."""

    results: Sequence[Ranked]
    next_page_token: str
    candidate_count: int
    first_position: int
    generation: str
    versions: ModelVersions
    timings: Sequence[StageTiming]
    degraded: Sequence[Degradation] = ()
