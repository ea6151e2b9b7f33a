"""What the batcher needs of a model: three methods, so that it knows neither tensors nor libraries."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Row = TypeVar("Row", contravariant=True)
Result = TypeVar("Result", covariant=True)


class Output(StrEnum):
    """What a backend returns for each row."""

    SENTENCE = "sentence_embedding"
    """float32 (dimensions,); `SentenceAndTokens` for a row that asks for its token vectors too."""
    TOKENS = "token_embeddings"
    """float32 (tokens of the row, hidden), special tokens included, not normalised."""
    LOGITS = "logits"
    """float32 (labels,)."""


class SentenceAndTokens(NamedTuple):
    """`Output.SENTENCE` and `Output.TOKENS` of one row, from one forward pass."""

    sentence: NDArray[np.float32]
    tokens: NDArray[np.float32]


class Backend(Protocol[Row, Result]):
    """A model. The batcher calls all three methods from its one worker thread, in this order, batch by batch.

    Whatever they raise is laid at the rows' door: the batch is split and run again until the row that cannot be
    run stands alone. A backend must therefore leave nothing behind when it raises.
    """

    def prepare(self, rows: Sequence[Row]) -> Any:
        """Rows → the model's input arrays."""

    def run(self, prepared: Any) -> Any:
        """The forward pass; the only long step, and it releases the GIL."""

    def finish(self, prepared: Any, raw: Any) -> Sequence[Result | Exception]:
        """One result a row, in order; an exception in a row's place fails that row only."""
