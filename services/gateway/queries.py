"""A query's vector, and what is left to search by without one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from services.gateway.answers import Reason, Run
from services.gateway.budgets import RemainingS, StageBudget
from services.gateway.ports import LEXICAL_UNSUPPORTED, Mode, QueryEncoderPort, TokensPayload, Vectors
from shared.errors import (
    DEFAULT_RETRY_AFTER_S,
    AisleError,
    FailedPreconditionError,
    InvalidArgumentError,
    OverloadedError,
    UnavailableError,
)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A query as it is searched for: by vector and words, or by words alone, which `error` then explains.

    `tokens` are for a re-ranker that reads them.
    """

    vector: Vectors | None
    error: AisleError | None = None
    tokens: TokensPayload | None = None

    @property
    def mode(self) -> Mode:
        """How to search."""
        return Mode.LEXICAL if self.vector is None else Mode.HYBRID

    @property
    def version(self) -> str:
        """Of the model that made the vector; empty where there is none."""
        return "" if self.vector is None else self.vector.model_version

    @contextmanager
    def searched(self) -> Iterator[None]:
        """Around a search: a store without words says that the encoder is what is missing."""
        try:
            yield
        except FailedPreconditionError as error:
            if self.error is not None and error.reason == LEXICAL_UNSUPPORTED:
                raise _nothing_to_search_by(self.error) from error
            raise

    def note(self, run: Run, degraded: Sequence[str]) -> None:
        """Tells `run` what the index left out. Where that was all there was to search by, raises `UnavailableError`, or
        `OverloadedError` if the encoder had too much to do."""
        if LEXICAL_UNSUPPORTED in degraded:
            if self.error is not None:
                raise _nothing_to_search_by(self.error)
            run.leave_out(Reason.LEXICAL_UNSUPPORTED, "found by vector alone: the store cannot rank by words")
        run.note_generation(degraded)


NO_QUERY = EncodedQuery(None)
"""For what starts from something else."""


async def encode(
    encoder: QueryEncoderPort,
    text: str,
    run: Run,
    budget: StageBudget,
    remaining_s: RemainingS,
    *,
    with_tokens: bool = False,
) -> EncodedQuery:
    """`text` as it is searched for. Raises `InvalidArgumentError` for what no model can read."""
    try:
        with run.stages.stage("encode"):
            encoded = await encoder.encode(text, with_tokens=with_tokens, timeout_s=budget.timeout_s(remaining_s()))
        return EncodedQuery(encoded.vector, tokens=encoded.tokens)
    except InvalidArgumentError:
        raise
    except AisleError as error:
        _log.debug("query not encoded", why=error.message)
        run.leave_out(Reason.QUERY_ENCODER_UNAVAILABLE, f"found by words alone: {error.message}")
        return EncodedQuery(None, error)


def _nothing_to_search_by(encode_error: AisleError) -> AisleError:
    message = f"{encode_error.message}, and the store cannot search by words alone; retry shortly"
    if isinstance(encode_error, OverloadedError):
        # Too much work, which is not for callers to try again at once.
        return OverloadedError(message, reason=encode_error.reason, retry_after_s=encode_error.retry_after_s)
    retry_after_s = getattr(encode_error, "retry_after_s", DEFAULT_RETRY_AFTER_S)
    return UnavailableError("query_encoder", message, retry_after_s=retry_after_s)
