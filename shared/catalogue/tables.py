"""Files as tables: numbered rows of named cells, streamed. What the cells mean is not known here.

A row that cannot be taken apart arrives as a `RowProblem` in its place. A file that is damaged raises
`UnreadableCatalogueError` at the row where it shows.
"""

import csv
import gzip
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from shared.catalogue.errors import RowProblem, UnreadableCatalogueError
from shared.catalogue.values import load_json

FORMATS = (".jsonl", ".jsonl.gz", ".jsonl.zip", ".csv", ".csv.gz", ".csv.zip", ".parquet")
MAX_LINE_BYTES = 1024 * 1024
"""A longer line holds no item: it is a file without line breaks, or a quote that never closes."""
_DELIMITERS = ",;\t|"
_DAMAGE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError)
"""What gzip and zipfile raise for truncated, corrupt, encrypted and exotically compressed files."""

Row = tuple[int, Mapping[str, object] | RowProblem]


@dataclass(slots=True)
class Table:
    """An open file. `close` it, or exhaust `rows`."""

    rows: Iterator[Row]
    columns: tuple[str, ...] | None
    """None when each row names its own (JSON Lines)."""
    fraction_read: Callable[[], float]
    untyped: bool = False
    """Every cell is text (CSV)."""
    stack: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Release the file. Safe to call twice."""
        self.stack.close()


def open_table(path: Path) -> Table:
    """Open `path` by its extension. Raises `UnreadableCatalogueError`."""
    name = path.name.lower()
    suffix = next((s for s in sorted(FORMATS, key=len, reverse=True) if name.endswith(s)), None)
    if suffix is None:
        raise UnreadableCatalogueError(
            f"{path}: cannot tell the format from the name; the formats are {', '.join(FORMATS)}"
        )
    if not path.exists():
        raise UnreadableCatalogueError(f"{path}: there is no such file")
    if not path.is_file():
        raise UnreadableCatalogueError(f"{path}: is not a file")
    stack = ExitStack()
    try:
        if suffix == ".parquet":
            # pyarrow is an extra: who reads JSON Lines must not need it.
            from shared.catalogue.parquet import open_parquet

            return open_parquet(path, stack)
        return _open_text(path, suffix, stack)
    except BaseException:
        stack.close()
        raise


def damaged(path: Path, error: BaseException) -> UnreadableCatalogueError:
    """The error for a file that stops making sense."""
    if isinstance(error, PermissionError):
        return UnreadableCatalogueError(f"{path}: permission denied")
    return UnreadableCatalogueError(f"{path}: is damaged or not what its name says ({error})")


def _open_text(path: Path, suffix: str, stack: ExitStack) -> Table:
    try:
        raw = stack.enter_context(path.open("rb"))
        size = max(path.stat().st_size, 1)
        stream: _Stream = raw
        if suffix.endswith(".gz"):
            stream = gzip.GzipFile(fileobj=raw)
            stack.callback(stream.close)
        elif suffix.endswith(".zip"):
            stream = _zip_member(raw, suffix.removesuffix(".zip"), path, stack)
        lines = _Lines(stream)
        lines.check_encoding(path)

        def fraction() -> float:
            return 1.0 if raw.closed else min(raw.tell() / size, 1.0)

        if suffix.startswith(".jsonl"):
            return Table(_guarded(path, _json_rows(lines)), None, fraction, stack=stack)
        header, reader = _csv_header(lines, path)
        rows = _guarded(path, _csv_rows(reader, header, lines))
        return Table(rows, tuple(header), fraction, untyped=True, stack=stack)
    except _DAMAGE as error:
        raise damaged(path, error) from error


def _guarded(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    try:
        yield from rows
    except _DAMAGE as error:
        raise damaged(path, error) from error


def _zip_member(raw: IO[bytes], suffix: str, path: Path, stack: ExitStack) -> "_Stream":
    archive = stack.enter_context(zipfile.ZipFile(raw))
    members = [
        info
        for info in archive.infolist()
        if info.filename.lower().endswith(suffix) and not info.filename.startswith("__MACOSX/")
    ]
    if len(members) != 1:
        found = ", ".join(info.filename for info in members[:5]) or "none"
        raise UnreadableCatalogueError(f"{path}: must hold exactly one {suffix} file; found: {found}")
    return stack.enter_context(archive.open(members[0]))


class _Stream(Protocol):
    def readline(self, limit: int, /) -> bytes: ...

    def close(self) -> None: ...


class _Lines(Iterator[str]):
    """Lines of bounded length. A class, because a generator could not go on after raising for one line."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self._first: bytes | None = stream.readline(MAX_LINE_BYTES + 1)
        self.number = 0

    def check_encoding(self, path: Path) -> None:
        first = self._first or b""
        if first.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UnreadableCatalogueError(f"{path}: is UTF-16; save it as UTF-8")
        self._first = first.removeprefix(b"\xef\xbb\xbf")

    def __next__(self) -> str:
        line = self._stream.readline(MAX_LINE_BYTES + 1) if self._first is None else self._first
        self._first = None
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = self._stream.readline(MAX_LINE_BYTES)
            raise RowProblem("", f"is longer than {MAX_LINE_BYTES:,} bytes")
        # Bytes that are not UTF-8 must fail the one row they are in: they travel as surrogates until it is read.
        return line.decode("utf-8", "surrogateescape")


def _json_rows(lines: _Lines) -> Iterator[Row]:
    while True:
        try:
            line = next(lines)
            if line.strip():
                yield lines.number, _json_object(line)
        except StopIteration:
            return
        except RowProblem as problem:
            yield lines.number, problem


def _json_object(line: str) -> Mapping[str, object]:
    try:
        row = load_json(line)
    except ValueError as error:
        # `error` of the json module says where, and never quotes the line.
        raise RowProblem("", f"is not JSON: {error}") from None
    if not isinstance(row, Mapping):
        raise RowProblem("", "is not a JSON object")
    return row


def _csv_header(lines: _Lines, path: Path) -> tuple[list[str], Iterator[list[str]]]:
    try:
        first = next(lines, "")
        delimiter = max(_DELIMITERS, key=first.count)
        columns = [c.strip() for c in next(csv.reader([first], delimiter=delimiter), [])]
    except (RowProblem, csv.Error):
        raise UnreadableCatalogueError(f"{path}: the first line is not a CSV header") from None
    named = [c for c in columns if c]
    if not named:
        raise UnreadableCatalogueError(f"{path}: is empty; the first line must name the columns")
    if any("\udc80" <= char <= "\udcff" for char in first):
        raise UnreadableCatalogueError(f"{path}: is not UTF-8; save it as UTF-8")
    repeated = sorted({c for c in named if named.count(c) > 1})
    if repeated:
        raise UnreadableCatalogueError(f"{path}: names a column twice: {', '.join(repeated)}")
    return columns, csv.reader(lines, delimiter=delimiter, strict=True)


def _csv_rows(reader: Iterator[list[str]], header: list[str], lines: _Lines) -> Iterator[Row]:
    while True:
        start = lines.number + 1
        try:
            cells = next(reader)
            if not any(map(str.strip, cells)):
                continue
            yield start, _named(header, cells)
        except StopIteration:
            return
        except RowProblem as problem:
            yield start, problem
        except csv.Error as error:
            yield start, RowProblem("", f"is not CSV ({error}); is a quote left open?")


def _named(header: list[str], cells: list[str]) -> Mapping[str, object] | RowProblem:
    if len(cells) != len(header):
        return RowProblem("", f"has {len(cells)} cells where the header has {len(header)}")
    return {name: cell for name, cell in zip(header, cells, strict=True) if name}
