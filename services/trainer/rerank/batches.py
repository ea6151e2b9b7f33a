"""Batches of pairs that are about as long as each other."""

from collections.abc import Iterator
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler

_BATCHES_SORTED_TOGETHER = 50
"""As many as transformers sorts together by length: enough for hardly any padding, and chance decides which pairs of
like length meet."""


class SimilarLengthBatches(DefaultBatchSampler):
    """Every pair once an epoch, in another order each time; a batch has pairs of similar length, for what fills the
    shorter ones up costs as much as what is read."""

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool, **others: Any) -> None:
        """`dataset`: columns query and item, whose characters are counted. `others`: see `DefaultBatchSampler`."""
        super().__init__(dataset, batch_size, drop_last, **others)
        columns = (dataset["query"], dataset["item"])
        self._lengths = torch.tensor([len(query) + len(item) for query, item in zip(*columns, strict=True)])

    def __iter__(self) -> Iterator[list[int]]:
        chance = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self._lengths), generator=chance)
        sorted_together = [
            part[torch.argsort(self._lengths[part], stable=True)]
            for part in torch.split(order, self.batch_size * _BATCHES_SORTED_TOGETHER)
        ]
        batches = [batch for part in sorted_together for batch in torch.split(part, self.batch_size)]
        if self.drop_last:
            batches = [batch for batch in batches if len(batch) == self.batch_size]
        for at in torch.randperm(len(batches), generator=chance).tolist():
            yield batches[at].tolist()
