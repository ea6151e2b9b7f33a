"""A backend without a model: for tests of the engine, and of services whose API is the subject."""

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from shared.inference.backend import Output, SentenceAndTokens
from shared.inference.tokens import Tokens

Array = NDArray[np.float32]
Answer = Array | SentenceAndTokens


class DummyBackend:
    """Answers from the token ids alone: equal rows get equal vectors, others very likely different ones.

    Every row that was run is in `seen`; `gate`, while cleared, holds `run` up; `poison` picks rows that fail.
    """

    def __init__(
        self,
        dimensions: int = 8,
        *,
        output: Output = Output.SENTENCE,
        delay_s: float = 0.0,
        poison: Callable[[Tokens], bool] = lambda row: False,
    ) -> None:
        self.dimensions = dimensions
        self.output = output
        self.delay_s = delay_s
        self.poison = poison
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        """Set when `run` was first reached."""
        self.batches: list[int] = []
        """Rows of each forward pass, in order."""
        self.seen: list[Tokens] = []

    def prepare(self, rows: Sequence[Tokens]) -> Sequence[Tokens]:
        """The rows as they are."""
        return rows

    def run(self, prepared: Sequence[Tokens]) -> Sequence[Answer]:
        """Wait for the gate and the delay, then answer."""
        self.entered.set()
        self.gate.wait()
        if self.delay_s:
            time.sleep(self.delay_s)
        self.batches.append(len(prepared))
        self.seen += prepared
        if any(map(self.poison, prepared)):
            raise RuntimeError("a row of this batch is poison")
        return [self._answer(row) for row in prepared]

    def finish(self, prepared: Sequence[Tokens], raw: Sequence[Answer]) -> Sequence[Answer | Exception]:
        """What `run` gave."""
        return raw

    def _answer(self, row: Tokens) -> Answer:
        if self.output is Output.TOKENS:
            return self._tokens(row)
        vector = self._vector(row.ids)
        if self.output is Output.LOGITS:
            return vector[:1]
        return SentenceAndTokens(vector, self._tokens(row)) if row.token_vectors else vector

    def _tokens(self, row: Tokens) -> Array:
        return np.stack([self._vector([token]) for token in row.ids])

    def _vector(self, ids: Sequence[int]) -> Array:
        vector = np.random.default_rng([len(ids), *ids]).standard_normal(self.dimensions).astype(np.float32)
        normal: Array = vector / np.linalg.norm(vector)
        return normal
