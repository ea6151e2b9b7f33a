"""The limits of the gateway's own arguments. A refusal names every field at fault at once."""

from collections.abc import Sequence

from shared.errors import FieldViolation, InvalidArgumentError
from shared.items import MAX_ID_BYTES

MAX_QUERY_CHARS = 500
"""Longer than any query a shopper types; a model reads the first few dozen words at most."""
MAX_PAGE_SIZE = 100
DEFAULT_PAGE_SIZE = 10
MAX_CANDIDATES = 1_000
"""What the index returns for one query at most."""
MAX_IMPORT_ITEMS = 1_000
MAX_UPSERT_ITEMS = 100
MAX_UPSERT_BYTES = 3 * 1024 * 1024
"""All items of a unary upsert travel on in one message, with their vectors, under gRPC's 4 MiB: written as a whole."""
MAX_DELETE_IDS = 1_000


def refuse(violations: Sequence[FieldViolation]) -> None:
    """Raises `InvalidArgumentError` unless `violations` is empty."""
    if violations:
        raise InvalidArgumentError(violations)


def query_problems(text: str) -> list[FieldViolation]:
    """What is wrong with a trimmed query."""
    if len(text) > MAX_QUERY_CHARS:
        return [FieldViolation("query", f"must be at most {MAX_QUERY_CHARS} characters, has {len(text)}")]
    # Zero-width and control characters show nothing, so a query of them is as blank as one of spaces.
    if not any(c.isprintable() and not c.isspace() for c in text):
        return [FieldViolation("query", "must not be blank")]
    return []


def id_problems(value: str, field: str) -> list[FieldViolation]:
    """What is wrong with an item's id."""
    if not value.strip():
        return [FieldViolation(field, "must not be empty")]
    if len(value.encode()) > MAX_ID_BYTES:
        return [FieldViolation(field, f"must be at most {MAX_ID_BYTES} bytes")]
    return []


def page_problems(page_size: int, candidate_count: int) -> list[FieldViolation]:
    """What is wrong with the two counts of a search, in both of which 0 stands for a default."""
    found = []
    if not 0 <= page_size <= MAX_PAGE_SIZE:
        found.append(FieldViolation("page_size", f"must be 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}"))
    if not 0 <= candidate_count <= MAX_CANDIDATES:
        found.append(FieldViolation("candidate_count", f"must be 1 to {MAX_CANDIDATES}, or 0 for the default"))
    return found


def count_problems(count: int, most: int, field: str) -> list[FieldViolation]:
    """What is wrong with the length of a repeated field that holds 1 to `most`."""
    return [] if 1 <= count <= most else [FieldViolation(field, f"must have 1 to {most:,} entries, has {count:,}")]
