"""Parquet files as tables. The one module that needs pyarrow (the extra `local`)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from shared.catalogue.errors import RowProblem, UnreadableCatalogueError
from shared.catalogue.tables import Row, Table, damaged

try:
    import pyarrow as pa
    from pyarrow import parquet as pq
except ImportError:
    raise UnreadableCatalogueError(
        "reading .parquet needs pyarrow, which is not installed: pip install 'aisle[local]'"
    ) from None

_BATCH_ROWS = 512
_BUFFER_BYTES = 1024 * 1024
"""Column chunks are read through buffers of this size: unbuffered, a file of one row group is read whole."""


def open_parquet(path: Path, stack: ExitStack) -> Table:
    """Open `path` to be read a few hundred rows at a time."""
    try:
        file = stack.enter_context(pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False))
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    table = Table(iter(()), tuple(file.schema_arrow.names), lambda: 1.0, stack=stack)
    progress = _Progress(file.metadata.num_rows)
    table.rows = _rows(file, path, progress)
    table.fraction_read = progress.fraction
    return table


class _Progress:
    def __init__(self, total: int) -> None:
        self.total = total
        self.read = 0

    def fraction(self) -> float:
        return self.read / self.total if self.total else 1.0


def _rows(file: "pq.ParquetFile", path: Path, progress: _Progress) -> Iterator[Row]:
    try:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for row in _python_rows(_readable(batch)):
                progress.read += 1
                yield progress.read, row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise damaged(path, error) from error


def _python_rows(batch: "pa.RecordBatch") -> Sequence[Mapping[str, object] | RowProblem]:
    try:
        return batch.to_pylist()
    except OverflowError:
        # One date that Python has not, such as the year 30000 for "never", must fail the one row it is in.
        return [_python_row(batch, index) for index in range(batch.num_rows)]


def _python_row(batch: "pa.RecordBatch", index: int) -> Mapping[str, object] | RowProblem:
    row: dict[str, object] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[index].as_py()
        except OverflowError:
            return RowProblem("", f"column {name!r} holds a date or time outside the years 1 to 9999")
    return row


def _readable(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """Timestamps finer than Python's are cut to microseconds: otherwise one needs pandas, or fails.

    Coarser ones are left: cast, the largest of them would come round to another time.
    """
    columns = [
        column.cast(pa.timestamp("us", column.type.tz), safe=False)
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns"
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
