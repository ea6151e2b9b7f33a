from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.trainer import parts as module
from services.trainer import progress
from services.trainer.parts import Array, Parts

TEXTS = [f"text {number}" for number in range(10)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten texts are three parts."""
    monkeypatch.setattr(module, "ROWS", 4)


class Model:
    """Its rows depend on the company that a text is encoded in, as int8 graphs' do. Stops at the call `stops_at`."""

    def __init__(self, stops_at: int | None = None) -> None:
        self.calls: list[list[str]] = []
        self._stops_at = stops_at

    def __call__(self, texts: Sequence[str]) -> Array:
        if len(self.calls) == self._stops_at:
            raise KeyboardInterrupt
        self.calls.append(list(texts))
        return np.array([[len(text), sum(map(ord, "".join(texts))) / 7] for text in texts], np.float32).reshape(-1, 2)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"))


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


@pytest.fixture
def whole(tmp_path: Path) -> Array:
    """Without being stopped."""
    return Parts(tmp_path / "whole").rows(["model"], TEXTS, Model())


def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_bits(parts: Parts, whole: Array) -> None:
    with pytest.raises(KeyboardInterrupt):
        parts.rows(["model"], TEXTS, Model(stops_at=2))
    later, again = Model(), Model()
    found = parts.rows(["model"], TEXTS, later)
    assert later.calls == [TEXTS[8:]]
    assert (found.dtype, found.tobytes()) == (whole.dtype, whole.tobytes())
    assert parts.rows(["model"], TEXTS, again).tobytes() == whole.tobytes()
    assert again.calls == []


def test_another_model_or_other_data_never_meet_them(parts: Parts) -> None:
    parts.rows(["model"], TEXTS, Model())
    for of, texts, computed in [
        (["other"], TEXTS, [TEXTS[:4], TEXTS[4:8], TEXTS[8:]]),
        (["model", "int8"], TEXTS, [TEXTS[:4], TEXTS[4:8], TEXTS[8:]]),
        (["model"], [*TEXTS[:5], "new", *TEXTS[6:]], [["text 4", "new", "text 6", "text 7"]]),
        (["model"], ["text 0text 1", *TEXTS[2:4]], [["text 0text 1", "text 2", "text 3"]]),
    ]:
        model = Model()
        found = parts.rows(of, texts, model)
        assert model.calls == computed
        assert (
            found.tobytes() == np.concatenate([Model()(texts[at : at + 4]) for at in range(0, len(texts), 4)]).tobytes()
        )


@pytest.mark.parametrize(
    "damage",
    [lambda body: body[:-5], lambda body: b"", lambda body: body[:-1] + bytes([body[-1] ^ 1]), lambda body: body[:20]],
    ids=["truncated", "empty", "a bit", "less than a checksum"],
)
def test_a_damaged_part_is_computed_again(parts: Parts, whole: Array, tmp_path: Path, damage: Any) -> None:
    parts.rows(["model"], TEXTS, Model())
    for file in tmp_path.glob("*.part"):
        file.write_bytes(damage(file.read_bytes()))
    model = Model()
    assert parts.rows(["model"], TEXTS, model).tobytes() == whole.tobytes()
    assert len(model.calls) == 3


def test_one_that_was_stopped_while_it_wrote_leaves_no_part(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, write = count(), Path.write_bytes

    def stopped(path: Path, body: bytes) -> int:
        if next(calls) < 1:
            return write(path, body)
        write(path, body[:50])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", stopped)
        with pytest.raises(KeyboardInterrupt):
            parts.rows(["model"], TEXTS, Model())
    assert len(list(tmp_path.glob("*.part"))) == 1
    model = Model()
    parts.rows(["model"], TEXTS, model)
    assert model.calls == [TEXTS[4:8], TEXTS[8:]]


def test_a_result_can_be_one_part_of_any_array(parts: Parts) -> None:
    calls = count()

    def find() -> Array:
        next(calls)
        return np.array(["desk in red", "größe", ""])

    first, second = (parts.whole(["negatives", {"seed": 0}], find) for _ in range(2))
    assert first.tolist() == second.tolist() == ["desk in red", "größe", ""]
    assert next(calls) == 1
    parts.whole(["negatives", {"seed": 1}], find)
    assert next(calls) == 3


def test_nothing_to_compute_is_asked_once(parts: Parts) -> None:
    assert parts.rows(["model"], [], Model()).shape == (0, 2)


def test_of_several_processes_one_writes(tmp_path: Path) -> None:
    reader, model = Parts(tmp_path, writes=False), Model()
    reader.rows(["model"], TEXTS, Model())
    assert files(tmp_path) == []
    Parts(tmp_path).rows(["model"], TEXTS, Model())
    reader.rows(["model"], TEXTS, model)
    assert model.calls == []


def test_the_bar_begins_where_the_run_goes_on(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(progress, "shown", lambda _: True)
    bars, real = [], module.bar

    def watched(rows: int, done: int) -> Any:
        bars.append(real(rows, done))
        return bars[-1]

    monkeypatch.setattr(module, "bar", watched)
    with pytest.raises(KeyboardInterrupt):
        parts.rows(["model"], TEXTS, Model(stops_at=2))
    assert (bars[0].initial, bars[0].n) == (0, 8)
    assert "done before" not in caplog.text
    parts.rows(["model"], TEXTS, Model())
    assert (bars[1].initial, bars[1].n, bars[1].total) == (8, 10, 10)
    assert "8 of 10 rows were done before" in caplog.text


def test_they_go_when_the_job_has_ended(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "parts")
    parts.remove()
    parts.rows(["model"], TEXTS, Model())
    parts.remove()
    assert files(tmp_path) == []
