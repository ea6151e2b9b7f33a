"""What a demo does of a catalogue, without a mesh."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.local import demo, session
from deploy.local.catalogue import Loaded
from deploy.local.demo import Options
from deploy.local.mesh import Mesh
from deploy.local.spec import MeshSpec


@pytest.fixture
def played(spec: MeshSpec, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Queries that were played. The catalogue was noted without searches, as versions before did."""
    queries: list[str] = []

    @contextmanager
    def mesh(*_: object) -> Iterator[Mesh]:
        yield Mesh(spec)

    monkeypatch.setattr(demo, "_mesh", mesh)
    monkeypatch.setattr(demo, "_loaded", lambda *_: Loaded(1))
    monkeypatch.setattr(demo, "_show", lambda *_: None)
    monkeypatch.setattr(session, "play", lambda *asked: queries.append(asked[-1]))
    return queries


@pytest.fixture
def options(tmp_path: Path) -> Options:
    catalogue = tmp_path / "shop.csv"
    catalogue.write_text("id,title\n1,Lampe\n")
    return Options(str(catalogue), folder=tmp_path)


def test_a_catalogue_noted_without_searches_asks_for_one(
    played: list[str], options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.run(options)
    assert played == []
    assert "QUERY=" in capsys.readouterr().out


def test_the_search_that_was_asked_for_is_played_without_any_noted(played: list[str], options: Options) -> None:
    demo.run(replace(options, query="Lampe"))
    assert played == ["Lampe"]
