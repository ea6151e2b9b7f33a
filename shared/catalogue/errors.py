"""What can be wrong with a catalogue file.

    CatalogueError
    ├── MappingError               columns and item fields cannot be matched
    ├── UnreadableCatalogueError   not there, not a format that is read, damaged, a reader not installed
    └── NoUsableRowError           read to its end without one item

One bad row is none of these: it is a `RowError`, which is yielded, not raised. Messages are for the person
who named the file, name the remedy, and hold no item text.
"""

from dataclasses import dataclass


class CatalogueError(Exception):
    """The file as a whole cannot be used. The message is fit to print as it stands."""


class MappingError(CatalogueError):
    """A mapping that says something impossible, or a file whose columns do not tell the id or the title."""


class UnreadableCatalogueError(CatalogueError):
    """The file cannot be opened, or turns out damaged part of the way."""


class NoUsableRowError(CatalogueError):
    """The file was read and not one row of it is an item."""


@dataclass(frozen=True, slots=True)
class RowError:
    """Why one row was skipped. Holds no item text."""

    line: int
    """From 1: the line of the file (the header is line 1), or the row of a Parquet file."""
    field: str
    """The item's field at fault; empty when the row as a whole is."""
    reason: str

    @property
    def where(self) -> str:
        """The row, for people."""
        return f"line {self.line}"

    @property
    def why(self) -> str:
        """The field and the reason: the same for all rows with this fault."""
        return f"{self.field}: {self.reason}" if self.field else self.reason

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


class RowProblem(Exception):  # noqa: N818  # not an error of the program: it becomes the `RowError` of its row
    """Raised inside the readers by whoever finds the fault; never leaves `CatalogueReader`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason
