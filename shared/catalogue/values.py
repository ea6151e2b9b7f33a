"""One cell → one typed value. Cells come from JSON, CSV and Parquet, so each function takes any object.

An absent value (None, blank text, NaN) is None, because files say "not known" in all three ways. What is
there and cannot be read raises `RowProblem` naming the field.
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from math import isfinite, isnan

from shared.catalogue.errors import RowProblem
from shared.items import MICROS_PER_UNIT, Attribute

_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_EXPONENT = 18
"""Numbers beyond this many digits are mistakes, and expanding 1e999999999 would never end."""
_MS_EPOCH_FROM = 100_000_000_000
"""As seconds this is the year 5138, so larger numbers are milliseconds."""
_EPOCH_FROM = 946_684_800
"""The year 2000: no shop's items were last changed before. Smaller numbers are years, days, or dates cut short, and
taken as seconds they would make every row older than what the index has."""
_EPOCH_TO = 7_258_118_400
"""The year 2200. Larger numbers are dates with times (20240131120000), which would be newer than all that is written
later."""

_SYMBOLS = {
    "$": "USD",
    "US$": "USD",
    "€": "EUR",
    "£": "GBP",
    "₹": "INR",
    "₩": "KRW",
    "CA$": "CAD",
    "A$": "AUD",
}
_PRICE = re.compile(r"(?P<before>[^\d.,+-]*)(?P<number>[+-]?[\d.,\s'’]*\d)(?P<after>[^\d.,]*)")
_GROUPED = {",": re.compile(r"\d{1,3}(,\d{3})+"), ".": re.compile(r"\d{1,3}(\.\d{3})+")}
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?")

_IN_STOCK = {
    "true",
    "yes",
    "y",
    "t",
    "instock",
    "available",
    "limitedavailability",
    "onlineonly",
    "instoreonly",
}
_NOT_IN_STOCK = {
    "false", "no", "n", "f", "outofstock", "unavailable", "soldout", "discontinued", "backorder", "preorder",
}  # fmt: skip
"""Pre-orders and back-orders cannot be bought *now*, which is what the field means."""


def is_missing(value: object) -> bool:
    """True for the three ways a file says "not known"."""
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and isnan(value))
    )


def text(value: object, field: str) -> str:
    """Text as it stands, stripped; "" when missing. A whole float loses its ".0": it was an integer id."""
    if is_missing(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (Mapping, list, tuple, set, bytes)):
        raise RowProblem(field, "must be text")
    result = str(value).strip()
    if _SURROGATE.search(result):
        raise RowProblem(field, "is not valid UTF-8")
    return result


def decimal(value: object, field: str) -> Decimal | None:
    """An exact number. A float is read by its shortest decimal form, so 19.99 stays 19.99."""
    if is_missing(value):
        return None
    try:
        number = Decimal(str(value).strip()) if not isinstance(value, bool) else Decimal("NaN")
    except InvalidOperation:
        raise RowProblem(field, "must be a number") from None
    if not number.is_finite():
        raise RowProblem(field, "must be a number")
    if number and number.adjusted() > _MAX_EXPONENT:
        raise RowProblem(field, "is out of range")
    return number


def number(value: object, field: str, divisor: int = 1) -> float | None:
    """A finite float."""
    exact = decimal(value, field)
    return None if exact is None else float(exact / divisor)


def count(value: object, field: str) -> int | None:
    """A whole number; `12.0` and `1,234` count as whole."""
    exact = decimal(value.replace(",", "") if isinstance(value, str) else value, field)
    if exact is None:
        return None
    if exact != exact.to_integral_value():
        raise RowProblem(field, "must be a whole number")
    return int(exact)


def money(value: object, divisor: int = 1) -> tuple[int, str] | None:
    """`(micros, currency or "")` of 12.5, "$1,299.00", "1.299,00 €", "EUR 12", {"amount":…, "currency":…}, …"""
    if isinstance(value, Mapping):
        amount = next((value[k] for k in ("amount", "value", "price") if k in value), None)
        currency = text(value.get("currency") or value.get("currency_code"), "price")
        inner = money(amount, divisor)
        return inner and (inner[0], currency or inner[1])
    if is_missing(value):
        return None
    amount, currency = _split_price(value) if isinstance(value, str) else (value, "")
    exact = decimal(amount, "price")
    if exact is None:
        return None
    micros = exact * MICROS_PER_UNIT / divisor
    whole = micros.to_integral_value()
    # A float carries noise below the micro (17.991000000000003); text that fine is meant, and would be lost.
    if whole != micros and not isinstance(value, float):
        raise RowProblem("price", "is finer than a millionth of the currency")
    return int(whole), currency


def _split_price(price: str) -> tuple[str, str]:
    match = _PRICE.fullmatch(price.strip())
    if match is None:
        return price, ""
    label = (match["before"].strip() or match["after"].strip()).strip()
    code = _SYMBOLS.get(label, label.upper())
    if code and not re.fullmatch(r"[A-Z]{3}", code):
        raise RowProblem("price", "has a currency that is not known; use a three-letter code")
    return _plain_number(re.sub(r"[\s'’]", "", match["number"])), code


def _plain_number(digits: str) -> str:
    """`digits` with a point for its decimals: "1,299" is grouped and "12,99" is not; "1,2999" may be either."""
    body = digits.lstrip("+-")
    sign = "-" if digits.startswith("-") else ""
    if "," in body and "." in body:
        point = max(",", ".", key=body.rfind)
        head, _, tail = body.rpartition(point)
        comma = "," if point == "." else "."
        if not _GROUPED[comma].fullmatch(head):
            raise RowProblem("price", "must be a number")
        return f"{sign}{head.replace(comma, '')}.{tail}"
    if "," in body:
        if _GROUPED[","].fullmatch(body):
            return sign + body.replace(",", "")
        if re.fullmatch(r"\d+,\d{1,2}", body):
            return sign + body.replace(",", ".")
        raise RowProblem("price", "must be a number")
    if body.count(".") > 1 and _GROUPED["."].fullmatch(body):
        return sign + body.replace(".", "")
    return sign + body


def stock(value: object, field: str) -> bool | None:
    """A flag, a word ("in stock", "https://schema.org/OutOfStock") or a quantity."""
    if is_missing(value):
        return None
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = re.sub(r"[^a-z]", "", value.rpartition("/")[2].lower())
        if word in _IN_STOCK:
            return True
        if word in _NOT_IN_STOCK:
            return False
        if word:
            raise RowProblem(field, "must be true, false, a quantity, or an availability such as 'in stock'")
    quantity = decimal(value, field)
    return None if quantity is None else quantity > 0


def timestamp(value: object, field: str) -> datetime | None:
    """ISO 8601 text (also as a number, 20240131), or seconds or milliseconds since 1970. Without a zone it is UTC. 0 is
    what exports write for a time that is not known."""
    if is_missing(value) or value in (0, "0"):
        return None
    try:
        if isinstance(value, datetime):
            moment = value
        elif isinstance(value, date):
            moment = datetime(value.year, value.month, value.day, tzinfo=UTC)
        elif isinstance(value, str) and not value.strip().isdigit():
            moment = datetime.fromisoformat(value.strip())
        else:
            moment = _numbered_moment(decimal(value, field) or Decimal(0), field)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise RowProblem(field, "must be a date and time in ISO 8601") from None


def _numbered_moment(exact: Decimal, field: str) -> datetime:
    if 10**7 <= exact < 10**8 and exact == exact.to_integral_value():
        return datetime.fromisoformat(str(int(exact)))
    seconds = exact / (1000 if abs(exact) >= _MS_EPOCH_FROM else 1)
    if not _EPOCH_FROM <= seconds < _EPOCH_TO:
        raise RowProblem(
            field,
            "is too small or large a number for seconds or milliseconds since 1970; write ISO 8601, such as "
            "2024-01-31 or 2024-01-31T12:00:00Z",
        )
    return datetime.fromtimestamp(float(seconds), UTC)


def words(value: object, field: str, separators: str) -> tuple[str, ...]:
    """A list, a JSON list in text, or text split at the first of `separators` it holds. Repeated words stay."""
    if is_missing(value):
        return ()
    if isinstance(value, str):
        parsed = _json(value, "[")
        if parsed is None:
            mark = next((s for s in separators if s in value), None)
            parsed = value.split(mark) if mark else [value]
        value = parsed
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise RowProblem(field, "must be text or a list of texts")
    return tuple(filter(None, (text(v, field) for v in value)))


def attributes(value: object) -> dict[str, Attribute]:
    """A JSON object (or its text) of name → text, number, flag or a list of those; or a list of pairs."""
    if isinstance(value, str):
        parsed = _json(value, "{[")
        if parsed is None and value.strip():
            raise RowProblem("attributes", "must be a JSON object")
        value = parsed
    if is_missing(value):
        return {}
    pairs: Iterable[tuple[object, object]]
    if isinstance(value, Mapping):
        pairs = value.items()
    elif isinstance(value, (list, tuple)):
        pairs = [_pair(entry) for entry in value]
    else:
        raise RowProblem("attributes", "must be a JSON object")
    read = {text(name, "attributes"): attribute(content) for name, content in pairs}
    return {name: content for name, content in read.items() if name and (content.text or content.numbers)}


def _pair(entry: object) -> tuple[object, object]:
    if isinstance(entry, Mapping):
        return entry.get("name"), entry.get("value")
    if isinstance(entry, (list, tuple)) and len(entry) == 2:
        return entry[0], entry[1]
    raise RowProblem("attributes", "must be a JSON object, or a list of names and values")


def attribute(value: object, *, untyped: bool = False) -> Attribute:
    """One attribute. `untyped` cells (CSV) that look like a number are kept as both: either filter finds them."""
    texts: list[str] = []
    numbers: list[float] = []
    for part in value if isinstance(value, (list, tuple)) else [value]:
        if is_missing(part):
            continue
        if isinstance(part, (int, float, Decimal)) and not isinstance(part, bool):
            numbers.append(_finite(part))
            continue
        # Objects inside attributes cannot be filtered by: their text form keeps them searchable.
        nested = isinstance(part, (Mapping, list, tuple))
        content = text(json.dumps(part, default=str, ensure_ascii=False) if nested else part, "attributes")
        texts.append(content)
        if untyped and _NUMBER.fullmatch(content) and len(content) < _MAX_EXPONENT * 2:
            numbers.append(_finite(content))
    return Attribute(tuple(texts), tuple(numbers))


def _finite(value: float | Decimal | str) -> float:
    try:
        result = float(value)
    except OverflowError:
        result = float("inf")
    if not isfinite(result):
        raise RowProblem("attributes", "numbers must be finite")
    return result


def _json(value: str, starts: str) -> object:
    """`value` parsed when it opens like JSON; None when it is plain text after all."""
    if value.lstrip()[:1] not in tuple(starts):
        return None
    try:
        return load_json(value)
    except ValueError:
        return None


def load_json(document: str | bytes) -> object:
    """JSON with exact decimals. Raises `ValueError` for all that is not JSON, however deep it is nested."""
    try:
        parsed: object = json.loads(document, parse_float=Decimal, parse_constant=_no_constant)
    except (RecursionError, ArithmeticError):
        raise ValueError("nested too deeply, or a number out of range") from None
    return parsed


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
