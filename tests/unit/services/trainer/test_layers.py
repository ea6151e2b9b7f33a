from pathlib import Path

import pytest

from services.trainer.base import open_base
from services.trainer.errors import JobError
from services.trainer.graph.architecture import SUPPORTED
from services.trainer.layers import first_token_only
from services.trainer.rerank.model import load
from tests.unit.services.trainer.conftest import make_base

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def test_kept_layers_are_spread_and_the_head_stays(tiny_base: Path) -> None:
    base = open_base(str(tiny_base))
    every, model = load(base, 40), load(base, 40, keep_layers=2)
    weights = [dict(each.transformers_model.base_model.encoder.named_parameters()) for each in (every, model)]
    for kept, of in enumerate((0, 2)):
        name = "attention.self.query.weight"
        assert torch.equal(weights[1][f"layer.{kept}.{name}"], weights[0][f"layer.{of}.{name}"])
    assert len(model.predict([("red desk", "desk in red")]).shape) == 1
    with pytest.raises(JobError, match="the base has 3"):
        load(base, 40, keep_layers=4)


def test_a_cross_encoder_is_loaded_so(tiny_base: Path) -> None:
    model = load(open_base(str(tiny_base)), 40)
    seen: list[torch.Size] = []
    last = model.transformers_model.base_model.encoder.layer[-1]
    last.output.dense.register_forward_hook(lambda module, given, output: seen.append(output.shape))
    model.predict([("red desk", "desk in red")])
    assert [shape[:2] for shape in seen] == [(1, 1)]


@pytest.mark.parametrize("model_type", SUPPORTED)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_head_that_reads_the_first_token_scores_and_learns_the_same_of_it_alone(
    tmp_path: Path, model_type: str, attention: str
) -> None:
    path = make_base(tmp_path / model_type, model_type, labels=1)
    ids = torch.randint(5, 60, (3, 12))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    found = []
    for alone in (False, True):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(path, attn_implementation=attention)
        if alone:
            first_token_only(model)
        seen: list[torch.Size] = []
        last = model.base_model.encoder.layer[-1]
        last.output.dense.register_forward_hook(lambda module, given, output, seen=seen: seen.append(output.shape))
        scores = model(input_ids=ids, attention_mask=mask).logits
        scores.pow(2).sum().backward()
        gradients = [each.grad for each in model.parameters() if each.grad is not None]
        assert seen[0][1] == (1 if alone else 12)
        found.append([scores, *gradients])
    assert len(found[0]) == len(found[1])
    for whole, alone_ in zip(*found, strict=True):
        torch.testing.assert_close(whole, alone_, rtol=1e-3, atol=1e-5)


def test_a_model_of_another_build_is_left_as_it_is(tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(
        "distilbert", vocab_size=64, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=80
    )
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.randint(5, 60, (3, 12))
    before = model(input_ids=ids).logits
    first_token_only(model)
    assert torch.equal(model(input_ids=ids).logits, before)
