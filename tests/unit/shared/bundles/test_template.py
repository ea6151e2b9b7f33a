from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.bundles import DEFAULT_TEMPLATE, ItemTemplate, TemplateField, render
from shared.items import Attribute, Item


@dataclass
class Thing:
    """An item of another make: the template asks for attributes, not for a class."""

    title: str = ""
    description: str = ""
    brand: str = ""
    category_path: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    attributes: dict[str, Attribute] = field(default_factory=dict)


def test_the_default_template_reads_like_a_label() -> None:
    item = Item(
        id="1",
        title="Walnut desk",
        brand="Nordvik",
        category_path=("Furniture", "Desks"),
        attributes={"width_cm": Attribute(numbers=(120.0,)), "color": Attribute(text=("brown", "oak"))},
        description="Solid top.",
    )
    assert render(DEFAULT_TEMPLATE, item) == (
        "Walnut desk. by Nordvik. Furniture > Desks. color brown oak, width cm 120. Solid top"
    )


def test_missing_parts_leave_no_separator_and_no_prefix() -> None:
    assert render(DEFAULT_TEMPLATE, Thing(title="Walnut desk")) == "Walnut desk"
    assert render(DEFAULT_TEMPLATE, Thing(title="Desk", description="Oak")) == "Desk. Oak"
    assert render(DEFAULT_TEMPLATE, Thing()) == ""
    assert render(DEFAULT_TEMPLATE, Thing(title="Desk", attributes={"x": Attribute()})) == "Desk"
    assert render(DEFAULT_TEMPLATE, Thing(title="Desk", category_path=["", " "])) == "Desk"


texts = st.text(alphabet="ab. \n>", max_size=30)


@given(st.builds(Thing, title=texts, description=texts, brand=texts, category_path=st.lists(texts, max_size=3)))
def test_never_a_dangling_separator_or_a_line_break(thing: Thing) -> None:
    text = render(DEFAULT_TEMPLATE, thing)
    assert text == text.strip()
    assert not text.endswith(". ")
    assert "\n" not in text


def test_a_full_stop_of_the_part_does_not_double() -> None:
    assert render(DEFAULT_TEMPLATE, Thing(title="Desk.", description="Oak.")) == "Desk. Oak"


def test_parts_are_cut_at_a_word_or_where_there_is_none_at_the_character() -> None:
    template = ItemTemplate(fields=(TemplateField(name="title", max_chars=10),))
    assert render(template, Thing(title="standing desk oak")) == "standing"
    assert render(template, Thing(title="standing d")) == "standing d"
    assert render(template, Thing(title="书桌" * 20)) == "书桌" * 5


def test_attributes_come_in_one_order_whatever_the_map() -> None:
    template = ItemTemplate(fields=(TemplateField(name="attributes", joiner="; "),))
    values = {"b": Attribute(numbers=(2.5, 1e6)), "a": Attribute(text=("x",))}
    assert render(template, Thing(attributes=values)) == "a x; b 2.5 1000000"
    assert render(template, Thing(attributes=dict(reversed(values.items())))) == "a x; b 2.5 1000000"


def test_tags_and_own_separators() -> None:
    template = ItemTemplate(
        fields=(TemplateField(name="tags", prefix="tags: ", joiner="/"), TemplateField(name="title")), separator=" | "
    )
    assert render(template, Thing(title="Desk", tags=["new", "oak"])) == "tags: new/oak | Desk"


@pytest.mark.parametrize(
    "bad",
    [
        {"fields": []},
        {"fields": [{"name": "__class__"}]},
        {"fields": [{"name": "title", "format": "{x.__init__}"}]},
        {"fields": [{"name": "title", "max_chars": 0}]},
    ],
)
def test_a_template_reads_nothing_that_is_not_a_field_of_an_item(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ItemTemplate.model_validate(bad)
