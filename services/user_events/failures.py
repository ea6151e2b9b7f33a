"""How a database fails, apart from how each kind of database says so."""

from shared.errors import UnavailableError


class LostConnectionError(UnavailableError):
    """The connection broke under the work. Whether the work was done is not known; another connection may be had."""

    def __init__(self) -> None:
        super().__init__("events database")


class RowsRefusedError(Exception):
    """At least one of the rows of a transaction breaks a rule of the database; nothing of it was stored."""
