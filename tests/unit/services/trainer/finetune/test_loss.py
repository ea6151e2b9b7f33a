from typing import Any

import pytest
import torch
from torch import Tensor, nn

from services.trainer.finetune.loss import CachedCorrectedRankingLoss, CorrectedRankingLoss, embed, in_batch_loss


class BagOfWords(nn.Module):
    """Mean of token vectors: small enough to follow by hand, and blind to padding only if the mask is used."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, 8)
        self.rows: list[int] = []

    def __getitem__(self, at: int) -> nn.Module:
        """sentence-transformers looks at the kind of a model's first module."""
        return self.tokens

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        self.rows.append(features["input_ids"].numel())
        mask = features["attention_mask"].unsqueeze(-1)
        return {"sentence_embedding": (self.tokens(features["input_ids"]) * mask).sum(1) / mask.sum(1)}


def column(*rows: list[int]) -> dict[str, Any]:
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }


def labels(rows: int, documents: int) -> Tensor:
    return torch.cat([torch.ones(rows, 1), torch.zeros(rows, documents)], dim=1)


@pytest.fixture
def model() -> BagOfWords:
    torch.manual_seed(0)
    return BagOfWords()


@pytest.fixture
def columns() -> list[dict[str, Any]]:
    return [column([1], [2, 3], [4]), column([5, 6], [7], [8, 9, 10, 11]), column([12], [13, 14], [15])]


def test_without_corrections_it_is_the_plain_in_batch_softmax() -> None:
    torch.manual_seed(0)
    queries, documents = torch.randn(4, 8), torch.randn(4, 8)
    cosines = nn.functional.normalize(queries, dim=1) @ nn.functional.normalize(documents, dim=1).T
    expected = nn.functional.cross_entropy(20 * cosines, torch.arange(4))
    torch.testing.assert_close(in_batch_loss([queries, documents], labels(4, 1), 20), expected)


def test_a_popular_item_is_a_weaker_negative() -> None:
    """The gradient that pushes a query from an item shrinks with the chance that the item is in a batch."""
    same = torch.eye(3)
    documents = torch.ones(3, 3, requires_grad=True)
    values = labels(3, 1)
    values[2, 1] = 2.0
    in_batch_loss([same, documents], values, 1.0).backward()
    assert documents.grad is not None
    plain = torch.ones(3, 3, requires_grad=True)
    in_batch_loss([same, plain], labels(3, 1), 1.0).backward()
    assert plain.grad is not None
    pushed, before = documents.grad[2, :2].sum(), plain.grad[2, :2].sum()
    assert 0 < pushed < before


def test_only_differences_of_log_q_matter() -> None:
    torch.manual_seed(0)
    rows = [torch.randn(4, 8) for _ in range(3)]
    values = labels(4, 2)
    values[:, 1:] = torch.randn(4, 2)
    shifted = values.clone()
    shifted[:, 1:] += 7
    torch.testing.assert_close(in_batch_loss(rows, values, 20), in_batch_loss(rows, shifted, 20))


def test_a_row_counts_by_its_weight() -> None:
    torch.manual_seed(0)
    queries, documents = torch.randn(2, 8), torch.randn(2, 8)
    values = labels(2, 1)
    values[:, 0] = torch.tensor([1.0, 0.0])
    logits = 20 * nn.functional.normalize(queries, dim=1) @ nn.functional.normalize(documents, dim=1).T
    expected = nn.functional.cross_entropy(logits[:1], torch.tensor([0]))
    torch.testing.assert_close(in_batch_loss([queries, documents], values, 20), expected)


def test_each_log_q_belongs_to_its_own_document() -> None:
    """A negative's correction must not land on a positive: with two columns the order of places matters."""
    queries = torch.eye(2)
    positives, negatives = torch.eye(2), torch.eye(2)
    values = labels(2, 2)
    values[0, 2] = 100.0  # The first row's negative is as good as absent.
    logits = torch.tensor([[1.0, 0.0, 1.0 - 100, 0.0], [0.0, 1.0, 0.0 - 100, 1.0]])
    expected = nn.functional.cross_entropy(logits, torch.arange(2))
    torch.testing.assert_close(in_batch_loss([queries, positives, negatives], values, 1.0), expected)


def test_labels_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels must be \(2, 2\)"):
        in_batch_loss([torch.eye(2), torch.eye(2)], torch.ones(2, 3), 20)


def test_sorting_by_length_changes_no_vector_and_saves_padding(
    model: BagOfWords, columns: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.trainer.finetune.loss.CHUNK_ROWS", 3)
    plain = [model(each)["sentence_embedding"] for each in columns]
    padded = sum(model.rows)
    model.rows.clear()
    for ours, theirs in zip(embed(model, columns), plain, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert sum(model.rows) < padded


def test_gradient_caching_gives_the_same_loss_and_gradients(model: BagOfWords, columns: list[dict[str, Any]]) -> None:
    values = labels(3, 2)
    values[:, 1:] = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    found = []
    for loss in (CorrectedRankingLoss(model), CachedCorrectedRankingLoss(model, mini_batch_size=2)):
        model.zero_grad()
        value = loss(columns, values)
        value.backward()
        assert model.tokens.weight.grad is not None
        found.append((value.detach(), model.tokens.weight.grad.clone()))
    torch.testing.assert_close(found[0], found[1])
