"""Item → text: what an encoder reads of a product.

The template is data in the bundle, so training and serving cannot drift apart, and it is a list of fields
rather than a format string, so a bundle can neither run code nor reach an attribute that is not listed here.

    ItemTemplate(fields=(TemplateField(name="title"), TemplateField(name="brand", prefix="by ")))
    render(template, item)  →  "Walnut desk, 120 cm. by Nordvik"
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

FieldName = Literal["title", "brand", "category_path", "attributes", "tags", "description"]


class AttributeLike(Protocol):
    """Values of one attribute: texts ("red"), numbers (2.5), or both."""

    @property
    def text(self) -> Sequence[str]:
        """Text values."""

    @property
    def numbers(self) -> Sequence[float]:
        """Numeric values."""


class ItemLike(Protocol):
    """What a template may read of an item. `shared.items.Item` is one."""

    @property
    def title(self) -> str:
        """Never empty in a valid item."""

    @property
    def description(self) -> str:
        """May be empty."""

    @property
    def brand(self) -> str:
        """May be empty."""

    @property
    def category_path(self) -> Sequence[str]:
        """From the root down."""

    @property
    def tags(self) -> Sequence[str]:
        """Free labels."""

    @property
    def attributes(self) -> Mapping[str, AttributeLike]:
        """By name."""


class TemplateField(BaseModel):
    """One part of the text. Left out, prefix and all, where the item has nothing to say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: FieldName
    prefix: str = ""
    """Written before the part, as it stands ("by ")."""
    joiner: str = ", "
    """Between the entries of a field that has several (category_path, tags, attributes)."""
    max_chars: int = Field(default=512, ge=1)
    """The part is cut at the last word that fits."""


class ItemTemplate(BaseModel):
    """Fields in the order an encoder should read them: what is cut off by the token limit is the tail."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: tuple[TemplateField, ...] = Field(min_length=1)
    separator: str = ". "
    """Between parts that are there."""


DEFAULT_TEMPLATE = ItemTemplate(
    fields=(
        TemplateField(name="title", max_chars=300),
        TemplateField(name="brand", prefix="by ", max_chars=80),
        TemplateField(name="category_path", joiner=" > ", max_chars=120),
        TemplateField(name="attributes", max_chars=240),
        TemplateField(name="description", max_chars=600),
    )
)


def render(template: ItemTemplate, item: ItemLike) -> str:
    """The text of `item`: one line, no leading, trailing or doubled separator; empty only for an empty item."""
    parts = (_part(field, item, template.separator) for field in template.fields)
    return template.separator.join(part for part in parts if part)


def _part(field: TemplateField, item: ItemLike, separator: str) -> str:
    entries = (" ".join(entry.split()) for entry in _READERS[field.name](item))
    text = _cut(field.joiner.join(entry for entry in entries if entry), field.max_chars)
    # A description that ends in "." before a ". " separator would read "..": the separator ends the part.
    text = text.rstrip(separator) if separator.strip() else text.rstrip()
    return field.prefix + text if text else ""


def _cut(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    head = text[: max_chars + 1]
    # Text without spaces (Chinese, a long SKU) has no word boundary to respect.
    at = head.rfind(" ")
    return head[:at] if at > 0 else head[:max_chars]


def _attributes(item: ItemLike) -> list[str]:
    # Sorted: the store and the wire keep maps in no order, and the vector must not depend on it.
    return [
        f"{name.replace('_', ' ')} {' '.join([*value.text, *map(_number, value.numbers)])}"
        for name, value in sorted(item.attributes.items())
        if value.text or value.numbers
    ]


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


_READERS: Mapping[FieldName, Callable[[ItemLike], Sequence[str]]] = {
    "title": lambda item: [item.title],
    "brand": lambda item: [item.brand],
    "category_path": lambda item: item.category_path,
    "attributes": _attributes,
    "tags": lambda item: item.tags,
    "description": lambda item: [item.description],
}
