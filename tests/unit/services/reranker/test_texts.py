"""Texts of items, rendered once."""

from pathlib import Path

import pytest
from aisle.catalog.v1 import item_pb2

from services.reranker.texts import ItemTexts
from shared.bundles import Bundle, BundleKind, ItemLike, ItemTemplate, TemplateField, render
from shared.bundles import bundle as bundles
from tests.support.tiny_bundle import make_bundle


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Titles, in the order in which they were rendered."""
    titles: list[str] = []

    def count(template: ItemTemplate, item: ItemLike) -> str:
        titles.append(item.title)
        return render(template, item)

    monkeypatch.setattr(bundles, "render", count)
    return titles


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", BundleKind.BI_ENCODER)


def item(title: str, **fields: str) -> item_pb2.Item:
    return item_pb2.Item(id="1", title=title, attributes={"color": item_pb2.Attribute(text=["red"])}, **fields)


def test_texts_are_the_bundles_and_each_is_rendered_once(bundle: Bundle, rendered: list[str]) -> None:
    texts = ItemTexts()
    lamp, chair = item("lamp"), item("chair", brand="Oak")
    expected = [bundle.item_text(one) for one in (lamp, chair, lamp)]
    rendered.clear()
    assert texts.of(bundle, [lamp, chair, lamp]) == expected
    # As the wire brings it next time: another message with the same contents.
    assert texts.of(bundle, [item_pb2.Item.FromString(chair.SerializeToString())]) == expected[1:2]
    assert rendered == ["lamp", "chair"]


def test_an_item_that_changed_is_rendered_anew(bundle: Bundle, rendered: list[str]) -> None:
    texts = ItemTexts()
    before, after = texts.of(bundle, [item("lamp", brand="Oak"), item("lamp", brand="Elm")])
    assert before != after
    assert rendered == ["lamp", "lamp"]


def test_another_models_template_makes_another_text(bundle: Bundle, tmp_path: Path) -> None:
    brands = ItemTemplate(fields=(TemplateField(name="brand"),))
    other = make_bundle(tmp_path / "other", BundleKind.BI_ENCODER, item_template=brands)
    texts = ItemTexts()
    lamp = item("lamp", brand="Oak")
    assert texts.of(bundle, [lamp]) == [bundle.item_text(lamp)]
    assert texts.of(other, [lamp]) == ["Oak"]


def test_what_has_no_room_is_rendered_each_time(bundle: Bundle, rendered: list[str]) -> None:
    texts = ItemTexts(max_bytes=0)
    texts.of(bundle, [item("lamp"), item("lamp")])
    assert rendered == ["lamp", "lamp"]
