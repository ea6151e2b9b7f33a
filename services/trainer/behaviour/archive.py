"""The behaviour log on disk: Parquet files that a later run goes on with.

    archive = Archive(folder)
    with archive.appending() as append:
        append(table, cursor)         # what came, as `SCHEMA` has it, and the cursor behind it

Each file holds the cursor behind its last event, so what is there and how far it goes cannot disagree: a run that was
killed loses the events of the file that it had not finished, and fetches them again. No typed query, property or price
is kept, since nothing is learnt from them; users are the keyed hashes that `user_events` keeps, and go from here as
they go from there (see `forgetting`).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from services.trainer.alone import alone
from services.trainer.errors import JobError
from shared.bundles import FileEntry
from shared.bundles.files import hash_file

_FIELDS: "list[pa.Field[Any]]" = [
    # As `EventType` of the contract, without its prefix.
    pa.field("type", pa.string()),
    pa.field("occurred_at", pa.timestamp("us", "UTC")),
    pa.field("arrived_at", pa.timestamp("us", "UTC")),
    # Null for who was not known.
    pa.field("user_key", pa.binary()),
    pa.field("session_key", pa.binary()),
    pa.field("item_id", pa.string()),
    # Of an impression, in the order shown, and where in the list the first stands (from 0).
    pa.field("item_ids", pa.list_(pa.string())),
    pa.field("first_position", pa.int32()),
    # The response that led to it; null where that is not known.
    pa.field("request_id", pa.string()),
    pa.field("surface", pa.string()),
    pa.field("query", pa.string()),
    # Of the item in the response's list (from 0); null where its page did not have the item.
    pa.field("position", pa.int32()),
]
SCHEMA = pa.schema(_FIELDS)
FILE_EVENTS = 100_000
"""Some 10 MB, and what a kill costs at most: half a minute of a log that is read."""

_CURSOR = b"aisle.cursor"
_PATTERN = "events-*.parquet"
_NEVER = 2**63 - 1

Append = Callable[[pa.Table, str], None]


class Archive:
    """The files in `folder`, which need not exist yet. `file_events`: how many events a full file has."""

    def __init__(self, folder: Path, file_events: int = FILE_EVENTS) -> None:
        self.folder = folder
        self._file_events = file_events

    @property
    def files(self) -> list[Path]:
        """In the order of the events' arrival."""
        return sorted(self.folder.glob(_PATTERN))

    @property
    def cursor(self) -> str:
        """Behind the last event that is here; empty when there is none. Raises `JobError` for a damaged file."""
        if not (files := self.files):
            return ""
        metadata = _opened(files[-1]).metadata or {}
        if _CURSOR not in metadata:
            raise JobError(f"{files[-1]} is no file of an archive: it holds no cursor")
        return str(metadata[_CURSOR].decode())

    def events(self) -> int:
        """How many there are. Raises `JobError` for a damaged file."""
        return sum(_opened(file).num_rows for file in self.files)

    def entry(self) -> FileEntry:
        """Content hash and size (bytes) of all files together."""
        entries = [hash_file(file) for file in self.files]
        together = hashlib.sha256("".join(entry.sha256 for entry in entries).encode())
        return FileEntry(sha256=together.hexdigest(), size=sum(entry.size for entry in entries))

    def users(self) -> list[bytes]:
        """The keys of all users with events here. Raises `JobError` for a damaged file."""
        found: set[bytes] = set()
        for file in self.files:
            found.update(_series(_read(file, ["user_key"]), "user_key").drop_nulls().unique())
        return sorted(found)

    def forget(self, known_since: Mapping[bytes, int | None]) -> int:
        """Drops each user's events that arrived before the user is known (microseconds since 1970; `None`: not at all);
        those of other users stay. File by file, each whole or not at all. Returns how many events that were; raises
        `JobError` when another process writes, or for a damaged file."""
        known = pl.DataFrame(
            {"user_key": list(known_since), "since": [_NEVER if at is None else at for at in known_since.values()]},
            {"user_key": pl.Binary, "since": pl.Int64},
        )
        dropped = 0
        with self._locked():
            for file in self.files:
                events = _read(file)
                arrived = pl.DataFrame([_series(events, "user_key"), _series(events, "arrived_at").to_physical()])
                keep = arrived.join(known, "user_key", "left", maintain_order="left").select(
                    (pl.col("arrived_at") >= pl.col("since")).fill_null(True)
                )
                kept = events.filter(keep.to_series().to_numpy())
                if kept.num_rows < events.num_rows:
                    _write(file, kept)
                    dropped += events.num_rows - kept.num_rows
        return dropped

    @contextmanager
    def appending(self) -> Iterator[Append]:
        """Gives what takes tables of `SCHEMA` and the cursor behind them. What was taken is on disk at the end, however
        that comes, and file by file before it. Raises `JobError` when another process appends."""
        with self._locked():
            writer = _Writer(self.folder, self.files, self._file_events)
            try:
                yield writer.append
            finally:
                writer.flush()

    def _locked(self) -> AbstractContextManager[None]:
        return alone(self.folder, str(self.folder))


class _Writer:
    def __init__(self, folder: Path, files: Sequence[Path], file_events: int) -> None:
        self._folder = folder
        self._file_events = file_events
        self._number = len(files)
        self._tables: list[pa.Table] = []
        if files and _opened(files[-1]).num_rows < file_events:
            # Written anew with what comes, so that many short runs do not leave as many small files.
            self._number -= 1
            self._tables = [_read(files[-1]).replace_schema_metadata(None)]
        self._kept = self._held
        self._cursor = ""

    @property
    def _held(self) -> int:
        return sum(table.num_rows for table in self._tables)

    def append(self, table: pa.Table, cursor: str) -> None:
        self._cursor = cursor
        # A long log has many pages without an event that is wanted.
        if table.num_rows:
            self._tables.append(table)
        if self._held >= self._file_events:
            self.flush()
            self._number, self._tables, self._kept = self._number + 1, [], 0

    def flush(self) -> None:
        """Writes the file, whole or not at all."""
        if self._held == self._kept:
            return
        table = pa.concat_tables(self._tables).replace_schema_metadata({_CURSOR: self._cursor.encode()})
        _write(self._folder / f"events-{self._number:06}.parquet", table)
        self._kept = self._held


def _write(file: Path, table: pa.Table) -> None:
    draft = file.with_suffix(".draft")
    pq.write_table(table, draft, compression="zstd")
    draft.replace(file)


def _read(file: Path, columns: list[str] | None = None) -> pa.Table:
    _opened(file)
    return pq.read_table(file, columns=columns)


def _series(table: pa.Table, column: str) -> pl.Series:
    return pl.Series(column, table[column])


def _opened(file: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise JobError(f"{file} is damaged: remove it and the files after it; they are fetched again") from error
