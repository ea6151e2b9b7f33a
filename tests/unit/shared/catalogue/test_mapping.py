import pytest

from shared.catalogue.errors import MappingError
from shared.catalogue.mapping import Binding, Mapping, Source


def bound(columns: list[str], spec: str = "") -> dict[str, str]:
    binding = Binding.of(Mapping.parse(spec), columns)
    return {k: str(v) for k, v in binding.fields.items()} | {f"@{k}": str(v) for k, v in binding.attributes.items()}


def test_usual_names_need_no_mapping() -> None:
    columns = [
        "Product_ID", "productName", "short description", "Manufacturer", "categories", "Price", "currency",
        "quantity", "average_rating", "review_count", "keywords", "specs", "item_group_id", "lang", "link",
        "image_link", "last_modified", "colour", "attributes.material",
    ]  # fmt: skip
    assert bound(columns) == {
        "id": "Product_ID", "title": "productName", "description": "short description", "brand": "Manufacturer",
        "category_path": "categories", "price": "Price", "currency": "currency", "in_stock": "quantity",
        "rating": "average_rating", "rating_count": "review_count", "tags": "keywords", "attributes": "specs",
        "group_id": "item_group_id", "language": "lang", "url": "link", "image_url": "image_link",
        "updated_at": "last_modified", "@color": "colour", "@material": "attributes.material",
    }  # fmt: skip


def test_the_better_alias_wins() -> None:
    assert bound(["name", "title", "sku", "id"])["title"] == "title"
    assert bound(["name", "title", "sku", "id"])["id"] == "id"


def test_a_lone_description_is_the_title() -> None:
    assert bound(["StockCode", "description"]) == {"id": "StockCode", "title": "description"}
    assert bound(["sku", "name", "description"])["description"] == "description"


def test_cents_by_name() -> None:
    assert bound(["id", "title", "price_cents"])["price"] == "price_cents / 100"
    assert bound(["id", "title", "amount"], "price_cents=amount")["price"] == "amount / 100"
    assert bound(["id", "title", "amount"], "price=amount/1000")["price"] == "amount / 1000"
    assert bound(["id", "title", "score"], "rating=score/20")["rating"] == "score / 20"


def test_a_column_whose_name_has_a_slash() -> None:
    assert bound(["id", "title", "price/1"], "price=price/1")["price"] == "price/1"


def test_constants_and_omissions() -> None:
    fields = bound(["id", "title", "brand", "category"], "currency==EUR,brand=,category==Toys > Games")
    assert fields == {
        "id": "id", "title": "title", "currency": "the constant 'EUR'",
        "category_path": "the constant 'Toys > Games'",
    }  # fmt: skip


def test_one_attribute_from_one_column() -> None:
    assert bound(["id", "title", "attr_colour"], "attributes.color=attr_colour")["@color"] == "attr_colour"


def test_quoted_entries_and_spaces() -> None:
    mapping = Mapping.parse(' id = sku , "title=Name, long",\n brand=b ')
    assert mapping.sources == {"id": Source("sku"), "title": Source("Name, long"), "brand": Source("b")}
    assert Mapping.parse("").sources == {}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("titel=name", "did you mean 'title'.*the fields are id, title"),
        ("title", "has no '='"),
        ("title=name,title=other", "twice"),
        ("title=nmae", "did you mean 'name'.*the columns are sku, name, price"),
        ("id==7", "cannot be a constant"),
        ("title=name/100", "cannot be divided"),
        ("attributes.=name", "unknown field"),
        ('"title=name', "cannot be read"),
        ("title=", "no column gives the title"),
    ],
)
def test_mistakes_are_named(spec: str, message: str) -> None:
    with pytest.raises(MappingError, match=message):
        bound(["sku", "name", "price"], spec)


def test_missing_columns_are_named() -> None:
    with pytest.raises(MappingError, match=r"no column gives the id.*query, title"):
        bound(["query", "title"])


def test_ambiguous_columns_are_named() -> None:
    with pytest.raises(MappingError, match="could be 'Na me' or 'na_me'"):
        bound(["id", "title", "Na me", "na_me"], "brand=NAME")


def test_later_columns_fill_gaps_and_move_nothing() -> None:
    binding = Binding.of(Mapping.parse("description="), ["sku", "name"])
    binding.extend(["id", "title", "brand", "description", "color"])
    assert {k: v.column for k, v in binding.fields.items()} == {"id": "sku", "title": "name", "brand": "brand"}
    assert binding.attributes == {"color": Source("color")}
    assert binding.unused == ["id", "title", "description"]


def test_a_mapped_column_may_turn_up_late() -> None:
    binding = Binding.of(
        Mapping.parse("price=Sale Price/100,attributes.hue=colour"), ["id", "title", "price"], complete=False
    )
    assert set(binding.fields) == {"id", "title"}
    binding.extend(["id", "sale_price", "colour"])
    assert binding.fields["price"] == Source("sale_price", 100)
    assert binding.attributes == {"hue": Source("colour")}
    binding.finish()


def test_a_mapped_column_that_never_turns_up_is_named_at_the_end() -> None:
    binding = Binding.of(Mapping.parse("price=sale"), ["id", "title"], complete=False)
    binding.extend(["sales", "brand"])
    with pytest.raises(
        MappingError, match=r"price is mapped to column 'sale'.*did you mean 'sales'.*title, sales, brand"
    ):
        binding.finish()


@pytest.mark.parametrize("spec", ["id=sku", "title=name"])
def test_what_every_item_needs_is_not_waited_for(spec: str) -> None:
    with pytest.raises(MappingError, match="which the file does not have"):
        Binding.of(Mapping.parse(spec), ["id", "title"], complete=False)


def test_a_mapped_column_is_found_beyond_the_most_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.catalogue.mapping._MOST_COLUMNS", 2)
    binding = Binding.of(Mapping.parse("price=sale"), ["id", "title"], complete=False)
    binding.extend(["brand", "sale"])
    assert {k: v.column for k, v in binding.fields.items()} == {"id": "id", "title": "title", "price": "sale"}
