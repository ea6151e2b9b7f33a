"""In-batch softmax with what sentence-transformers' losses lack: popularity correction and weights from grades.

Every other item of a batch is a negative of a query. Popular items are in many batches, so plain in-batch training
teaches that popular means wrong. Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
Recommendations" (RecSys 2019), subtract from each logit the logarithm of the chance that its item is in a batch.

Labels of a batch: float (rows, 1 + documents a row). Column 0 is the weight of the row; column 1 + j is log q of the
row's j-th document, the positive first.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers.base.losses.merged_forward import merge_feature_batches
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor, nn

CHUNK_ROWS = 32
"""Rows of similar length that are encoded together on a CPU, where padding costs as much as text."""


def in_batch_loss(embeddings: Sequence[Tensor], labels: Tensor, scale: float) -> Tensor:
    """Weighted mean over rows of the cross-entropy of `scale`·cosine − log q.

    `embeddings`: queries, positives, then any number of negatives, each (rows, dimensions).
    """
    queries, *documents = (nn.functional.normalize(each, dim=-1) for each in embeddings)
    if labels.shape != (len(queries), 1 + len(documents)):
        raise ValueError(f"labels must be {(len(queries), 1 + len(documents))}, got {tuple(labels.shape)}")
    weights, log_q = labels[:, 0], labels[:, 1:]
    # Documents stand column by column: all positives, then all first negatives, and so on.
    logits = scale * queries @ torch.cat(documents).T - log_q.T.reshape(1, -1)
    losses = nn.functional.cross_entropy(logits, torch.arange(len(queries), device=logits.device), reduction="none")
    return (weights * losses).sum() / weights.sum()


class CorrectedRankingLoss(MultipleNegativesRankingLoss):
    """`in_batch_loss` of one forward pass over the whole batch."""

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """See `in_batch_loss`."""
        return in_batch_loss(embed(self.model, list(sentence_features)), labels, self.scale)


class CachedCorrectedRankingLoss(CachedMultipleNegativesRankingLoss):
    """The same loss and gradients in the memory of `mini_batch_size` rows, at about twice the time.

    Gradient caching: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (2021).
    """

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """See `in_batch_loss`."""
        if labels is None:
            raise ValueError("this loss needs labels: weights and log q")
        loss = in_batch_loss([torch.cat(parts) for parts in reps], labels, self.scale)
        if with_backward:
            loss.backward()  # type: ignore[no-untyped-call]
            loss = loss.detach()
        return loss


def embed(model: nn.Module, columns: list[dict[str, Any]]) -> list[Tensor]:
    """One (rows, dimensions) tensor a column.

    On a CPU, rows of all columns are sorted by length and encoded in chunks trimmed to their longest: product
    titles and queries differ so much in length that half of a plain batch would be padding.
    """
    if columns[0].get("task") != columns[-1].get("task"):
        # Of two towers, each reads its own columns; the first is the queries', all others are items'.
        return [*embed(model, columns[:1]), *embed(model, columns[1:])]
    merged = merge_feature_batches(columns) if columns[0]["input_ids"].device.type == "cpu" else None
    if merged is None:
        return [model(column)["sentence_embedding"] for column in columns]
    lengths = merged["attention_mask"].sum(dim=1)
    order = lengths.argsort(stable=True)
    parts = []
    for rows in order.split(CHUNK_ROWS):
        width = int(lengths[rows].max())
        chunk = {
            name: value[rows, :width] if isinstance(value, Tensor) and value.ndim == 2 else value
            for name, value in merged.items()
        }
        parts.append(model(chunk)["sentence_embedding"])
    sorted_rows = torch.cat(parts)
    return list(sorted_rows[order.argsort()].chunk(len(columns)))
