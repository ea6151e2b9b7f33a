"""Events of an archive, written by hand."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from services.trainer.behaviour.archive import SCHEMA, Archive

START = datetime(2026, 1, 1, tzinfo=UTC)

Row = Mapping[str, Any]


def event(type: str = "CLICK", **fields: Any) -> Row:  # noqa: A002
    """An act on item a of a search for lamps, by user u, unless said otherwise. `minute`: after `START`; `user` and
    `session`: keys, as text."""
    at = START + timedelta(minutes=fields.pop("minute", 0))
    user, session = fields.pop("user", "u"), fields.pop("session", None)
    defaults: dict[str, Any] = {
        "type": type,
        "occurred_at": at,
        "arrived_at": at,
        "user_key": user.encode() if user else None,
        "session_key": session.encode() if session else None,
        "first_position": 0,
        "request_id": "r",
        "surface": "SEARCH",
        "query": "lamp",
    }
    if type == "IMPRESSION":
        defaults["item_ids"] = ["a", "b"]
    else:
        defaults |= {"item_id": "a", "position": 0}
    return {**defaults, **fields}


def page(**fields: Any) -> Row:
    """Items a and b, shown for the same search."""
    return event("IMPRESSION", **fields)


def frame(*rows: Row) -> pl.DataFrame:
    """As an archive has them."""
    found = pl.from_arrow(pa.Table.from_pylist(list(rows), SCHEMA))
    assert isinstance(found, pl.DataFrame)
    return found


def archive(folder: Path, *rows: Row, file_events: int = 1_000) -> Archive:
    """An archive that holds `rows`."""
    made = Archive(folder, file_events)
    with made.appending() as append:
        append(pa.Table.from_pylist(list(rows), SCHEMA), f"after {len(rows)}")
    return made
