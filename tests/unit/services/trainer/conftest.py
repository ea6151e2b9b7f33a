"""A base model of a few thousand random weights, in the Hugging Face layout."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.trainer.base import open_base
from services.trainer.errors import JobError
from tests.support.tiny_bundle import write_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """OpenMP threads that share cores with other tests wait for each other by spinning."""
    torch.set_num_threads(1)


def make_base(path: Path, model_type: str = "bert", labels: int = 0, seed: int = 0) -> Path:
    """`labels` > 0 makes a …ForSequenceClassification model."""
    torch.manual_seed(seed)
    transformers.utils.logging.disable_progress_bar()
    config = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=80,
        type_vocab_size=1 if "roberta" in model_type else 2,
        pad_token_id=0,
        num_labels=max(labels, 1),
    )
    loader = transformers.AutoModelForSequenceClassification if labels else transformers.AutoModel
    model = loader.from_config(config)
    # Fresh weights are so small that every text looks alike; a trained model's are not.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.mul_(1.0 if "embeddings" in name else 6.0)
    model.save_pretrained(path)
    write_tokenizer(path / "tokenizer.json")
    return path


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


def assert_goes_on(job: Callable[[Any], Any], options: Any, whole: Path, computed: list[Any], *, done: int) -> None:
    """`job`, which `stopped_once` stops after `done` of what is `computed`, computes the rest when it is resumed, and
    ends in the weights of one that was not stopped, in `whole`."""
    with pytest.raises(KeyboardInterrupt):
        job(options)
    with pytest.raises(JobError, match="is not empty"):
        job(options)
    assert len(computed) == done
    job(replace(options, resume=True))
    stopped, computed[:] = list(computed), []
    job(replace(options, out=whole))
    assert stopped == computed
    assert_same_weights(options.out, whole)


def assert_same_weights(one: Path, other: Path) -> None:
    weights, others = open_base(str(one)).weights, open_base(str(other)).weights
    assert all(np.array_equal(value, others[name]) for name, value in weights.items())


def assert_other_weights(one: Path, other: Path) -> None:
    weights, others = open_base(str(one)).weights, open_base(str(other)).weights
    assert any(not np.array_equal(value, others[name]) for name, value in weights.items())
