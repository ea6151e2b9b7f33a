"""Models under evaluation whose long answers are kept in parts."""

from collections.abc import Sequence

from services.trainer.evaluate.encode import Encoder, Vectors
from services.trainer.evaluate.rerank import Logits, Pair, Reranker
from services.trainer.parts import Parts
from shared.bundles import ItemLike


class KeptEncoder:
    """The vectors of items are kept; those of queries are not, which are few and short."""

    def __init__(self, encoder: Encoder, parts: Parts) -> None:
        self.name, self.version, self.digest = encoder.name, encoder.version, encoder.digest
        self._encoder = encoder
        self._parts = parts

    def item_text(self, item: ItemLike) -> str:
        """See `Encoder`."""
        return self._encoder.item_text(item)

    def queries(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder`."""
        return self._encoder.queries(texts)

    def items(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder`."""
        return self._parts.rows(["items", self.digest], texts, self._encoder.items)


class KeptReranker:
    """The scores of pairs are kept."""

    def __init__(self, reranker: Reranker, parts: Parts) -> None:
        self.name, self.version, self.digest = reranker.name, reranker.version, reranker.digest
        self._reranker = reranker
        self._parts = parts

    def item_text(self, item: ItemLike) -> str:
        """See `Reranker`."""
        return self._reranker.item_text(item)

    def logits(self, pairs: Sequence[Pair]) -> Logits:
        """See `Reranker`."""
        return self._parts.rows(["pairs", self.digest], pairs, self._reranker.logits)
