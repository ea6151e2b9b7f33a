from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from services.trainer.base import open_base
from services.trainer.errors import JobError
from services.trainer.finetune.model import load
from services.trainer.pretrain.loss import DeletionLoss, MaskedLanguageLoss, Masking, delete_tokens

TEXTS = ["red desk", "a lamp that is long and black and gold", "rug"]


@pytest.fixture
def model(tiny_base: Path) -> SentenceTransformer:
    return load(open_base(str(tiny_base)), 40)


def features(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    return model.preprocess(TEXTS)


def test_what_is_left_of_a_text_is_in_order_and_begins_and_ends_as_it_did(model: SentenceTransformer) -> None:
    torch.manual_seed(0)
    whole = features(model)
    for _ in range(20):
        left = delete_tokens(whole, 0.6)
        for before, mask, after, kept in zip(
            whole["input_ids"], whole["attention_mask"], left["input_ids"], left["attention_mask"], strict=True
        ):
            long, short = before[mask.bool()].tolist(), after[kept.bool()].tolist()
            assert short[0] == long[0]
            assert short[-1] == long[-1]
            assert len(short) >= 3, "one token that says something"
            rest = iter(long)
            assert all(token in rest for token in short), "a subsequence"
            assert kept.tolist() == sorted(kept.tolist(), reverse=True), "padding is to the right"


def test_about_the_share_is_deleted(model: SentenceTransformer) -> None:
    torch.manual_seed(0)
    whole = model.preprocess(["a lamp that is long and black and gold"] * 200)
    inside = int(whole["attention_mask"].sum()) - 2 * 200
    left = int(delete_tokens(whole, 0.6)["attention_mask"].sum()) - 2 * 200
    assert left / inside == pytest.approx(0.4, abs=0.03)
    assert int(delete_tokens(whole, 0.0)["attention_mask"].sum()) == int(whole["attention_mask"].sum())


def test_masks_hide_what_labels_say_and_nothing_special(model: SentenceTransformer) -> None:
    whole = features(model)
    masked, labels = Masking(model.tokenizer, 0.5, seed=3)(whole)
    hidden = labels != -100
    assert hidden.any()
    assert torch.equal(labels[hidden], whole["input_ids"][hidden])
    assert torch.equal(masked["input_ids"][~hidden], whole["input_ids"][~hidden])
    assert not hidden[whole["attention_mask"] == 0].any()
    assert not hidden[:, 0].any()
    again = Masking(model.tokenizer, 0.5, seed=3)(whole)
    assert torch.equal(again[1], labels)
    assert "input_ids" in whole
    assert not torch.equal(Masking(model.tokenizer, 0.5, seed=4)(whole)[1], labels)


def test_a_tokenizer_without_a_mask_cannot_be_masked(model: SentenceTransformer) -> None:
    model.tokenizer.mask_token = None
    with pytest.raises(JobError, match="no mask token"):
        Masking(model.tokenizer, 0.15)


def test_the_language_model_is_the_encoder_under_a_head(model: SentenceTransformer) -> None:
    torch.manual_seed(0)
    loss = MaskedLanguageLoss(model, 0.5)
    loss([features(model)]).backward()
    inner = model.transformers_model
    assert inner is not None
    embeddings = inner.get_input_embeddings().weight
    assert loss.head.get_output_embeddings().weight is embeddings
    assert embeddings.grad is not None
    assert embeddings.grad.abs().sum() > 0
    assert all(weight.grad is not None for name, weight in inner.named_parameters() if "layer.0" in name)


def test_the_decoder_shares_the_encoders_weights(model: SentenceTransformer) -> None:
    torch.manual_seed(0)
    loss = DeletionLoss(model, 0.6)
    value = loss([features(model)])
    value.backward()
    encoder = {id(weight) for weight in model.parameters()}
    own = [name for name, weight in loss.named_parameters() if id(weight) not in encoder]
    assert any("crossattention" in name for name in own)
    assert not any("attention.self.query" in name and "cross" not in name for name in own)
    assert value.item() > 0
