"""(query, item) pairs through a sequence-classification model, batched across requests."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.bundles import Bundle, BundleKind
from shared.errors import AisleError, InvalidArgumentError
from shared.inference.batcher import Batcher
from shared.inference.encoder import TokenizerThreads
from shared.inference.queue import Priority
from shared.inference.scorer import OwnsBatcher, Scores, collect, stop_at
from shared.inference.tokens import TextTokenizer, Tokens

Logits = NDArray[np.float32]


class CrossEncoder(OwnsBatcher):
    """See `Scorer`. The backend must give logits: one (a relevance) or several (the last means relevant)."""

    def __init__(self, bundle: Bundle, batcher: Batcher[Tokens, Logits]) -> None:
        if bundle.manifest.kind is not BundleKind.CROSS_ENCODER:
            raise ValueError(f"bundle {bundle.path} is a {bundle.manifest.kind}, not a cross-encoder")
        super().__init__(bundle, batcher)
        manifest = bundle.manifest
        self._queries = TextTokenizer(bundle.tokenizer_path, manifest.max_query_tokens, manifest.prompts.query)
        self._pairs = TextTokenizer(bundle.tokenizer_path, manifest.max_item_tokens)
        self._threads = TokenizerThreads(batcher)

    async def warm_up(self) -> None:
        """A short pair, a long one, and a page of pairs."""
        for texts in (["warm up"], ["warm " * self.bundle.manifest.max_item_tokens], ["a warm jumper"] * 32):
            scores = await self.score("warm up", texts)
            for error in scores.failures.values():
                raise error

    async def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        query_rows: NDArray[np.float32] | None = None,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
    ) -> Scores:
        """See `Scorer`. The score is a probability: sigmoid of one logit, or softmax over several."""
        until = stop_at(deadline)
        try:
            start = self._queries.start(query)
        except (TypeError, UnicodeEncodeError):
            raise InvalidArgumentError.of("query", "is not valid Unicode text") from None
        rows = await self._threads.map(lambda text: self._pairs.pair(start, text), texts, priority=priority)
        good = [row for row in rows if isinstance(row, Tokens)]
        results = iter(await self.submit_in_time(good, priority=priority, until=until))
        outcomes: dict[int, float | AisleError] = {}
        for index, row in enumerate(rows):
            outcome = next(results) if isinstance(row, Tokens) else row
            outcomes[index] = outcome if isinstance(outcome, AisleError) else probability(outcome)
        return collect(outcomes, len(texts))


def probability(logits: Logits) -> float:
    """Of relevance. `logits`: (labels,)."""
    if len(logits) == 1:
        return float(1 / (1 + np.exp(-np.float64(logits[0]))))
    exponents = np.exp(logits - logits.max(), dtype=np.float64)
    return float(exponents[-1] / exponents.sum())
