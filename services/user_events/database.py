"""The database: connections, transactions, and what its errors mean. SQLite or PostgreSQL, alike to the rest.

PostgreSQL is spoken to by asyncpg: of the asynchronous drivers that SQLAlchemy knows it is the fastest, and it sends
arrays as they are, by which a thousand rows are one short statement.
"""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services.user_events.failures import LostConnectionError, RowsRefusedError
from services.user_events.settings import DatabaseSettings
from shared.errors import AisleError, FailedPreconditionError, OverloadedError, UnavailableError
from shared.rpc import deadline

NAME = "events database"

_WRITERS = 3
"""Connections to PostgreSQL that write: the group commit, a user to forget, a job in the background."""
SUM_TIMEOUT_S = 60.0
"""For sums over a table of some hundred million counters."""
_TIMEOUT_SLACK_S = 0.5
"""The server gives up first, and says why; the client does where there is no server any more."""
_EMPTY_S = 1.0
"""Reads end in milliseconds as a rule. Who was forgotten is told so even where one does not."""
_EMPTY_TRY_S = 0.1
"""Long enough for most reads to end, and short for those who wait to write meanwhile."""
_EMPTY_PAUSE_S = 0.05
"""Between tries: for those who wait to write."""
_ANSWER_S = 0.1
"""Of a caller's time, what is left to answer in."""

# SQLSTATE classes and codes (PostgreSQL manual, appendix A).
_BAD_DATA = ("22", "23")
_TRANSIENT = ("08", "25P03", "28", "3D", "40", "53", "55P03", "57", "58")


class Database:
    """Connections to `settings.uri`, opened as they are needed."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self.is_server = settings.is_server
        self._reads: AsyncEngine
        self._writes: AsyncEngine
        if settings.is_server:
            self._reads = _postgres(settings, settings.read_timeout_s, settings.pool_size)
            self._reads = self._reads.execution_options(isolation_level="AUTOCOMMIT")
            self._writes = _postgres(settings, settings.write_timeout_s, _WRITERS)
        else:
            _make_file(Path(settings.uri))
            self._reads = _sqlite(settings, settings.pool_size, "BEGIN")
            # SQLite has one writer at a time: to queue for it here is kinder than to poll its lock.
            self._writes = _sqlite(settings, 1, "BEGIN IMMEDIATE")

    async def close(self) -> None:
        """Disconnects."""
        await self._reads.dispose()
        await self._writes.dispose()

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read by. On SQLite all that is read is of one moment, on PostgreSQL each statement is.

        Raises `UnavailableError` when the database is away or slow, `OverloadedError` when all connections are in use
        (`writing` too), and `DeadlineError` when the caller's time is up.
        """
        with _translated():
            limit_s = self._settings.read_timeout_s + _TIMEOUT_SLACK_S
            async with deadline.within(limit_s), self._reads.connect() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def summing(self) -> AsyncIterator[AsyncConnection]:
        """As `reading`, for what goes through much of a table while nobody waits for it."""
        with _translated():
            async with asyncio.timeout(SUM_TIMEOUT_S + _TIMEOUT_SLACK_S), self._reads.connect() as connection:
                if self.is_server:
                    await connection.execution_options(isolation_level="READ COMMITTED")
                    await connection.execute(text(f"SET LOCAL statement_timeout = {round(SUM_TIMEOUT_S * 1000)}"))
                yield connection

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block and durable after it. Raises `RowsRefusedError` as well."""
        with _translated():
            async with asyncio.timeout(self._settings.write_timeout_s + _TIMEOUT_SLACK_S):
                async with self._writes.begin() as connection:
                    yield connection

    async def empty_log(self) -> bool:
        """Empties SQLite's write-ahead log, which holds what was deleted until it is written over. `False` where it
        could not be: somebody reads by it for longer than a second, or than the caller waits."""
        if self.is_server:
            return True
        try:
            with _translated():
                async with asyncio.timeout(deadline.timeout_s(_EMPTY_S, _ANSWER_S)):
                    while True:
                        # Who writes in this process waits for the connection, and does not hold the lock.
                        async with self._writes.connect():
                            if await asyncio.to_thread(_checkpointed, self._settings.uri):
                                return True
                        await asyncio.sleep(_EMPTY_PAUSE_S)
        except AisleError:
            return False

    @contextlib.asynccontextmanager
    async def migrating(self, key: int) -> AsyncIterator[AsyncConnection]:
        """A transaction that takes its time, and waits for another one of the same `key`."""
        with _translated():
            async with self._writes.begin() as connection:
                if self.is_server:
                    await connection.execute(text("SET LOCAL statement_timeout = 0"))
                    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
                yield connection

    @contextlib.asynccontextmanager
    async def exclusively(self, key: int) -> AsyncIterator[bool]:
        """Whether this process is the only one inside a block of this `key`. On SQLite, which one process serves, it
        always is."""
        if not self.is_server:
            yield True
            return
        with _translated():
            connection = await self._reads.connect()
        try:
            with _translated():
                mine = (await connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key})).scalar_one()
            yield bool(mine)
        finally:
            # Ends the session, and with it the lock, whatever state it is in.
            await connection.invalidate()
            await connection.close()


def _url(settings: DatabaseSettings) -> URL:
    if not settings.is_server:
        return URL.create("sqlite+aiosqlite", database=settings.uri)
    password = settings.password.get_secret_value()
    url = make_url(settings.uri).set(drivername="postgresql+asyncpg")
    return url.set(password=password) if password else url


def _postgres(settings: DatabaseSettings, timeout_s: float, connections: int) -> AsyncEngine:
    milliseconds = str(round(timeout_s * 1000))
    engine = create_async_engine(
        _url(settings),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout_s,
        # Values never reach a log line.
        hide_parameters=True,
        connect_args={
            "timeout": settings.connect_timeout_s,
            "server_settings": {
                "application_name": "aisle user_events",
                "statement_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
                # Compiling a statement costs more than any of ours takes.
                "jit": "off",
            },
        },
    )

    @event.listens_for(engine.sync_engine, "connect")
    def durable(connection: Any, _record: object) -> None:
        # Where the server's own setting would acknowledge what a crash can lose.
        cursor = connection.cursor()
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        cursor.close()
        connection.commit()

    return engine


def _sqlite(settings: DatabaseSettings, connections: int, begin: str) -> AsyncEngine:
    engine = create_async_engine(
        _url(settings),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=settings.write_timeout_s,
        hide_parameters=True,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # The driver would begin transactions by itself, and only before the first write.
        connection.isolation_level = None
        cursor = connection.cursor()
        for name, value in (
            ("busy_timeout", round(settings.write_timeout_s * 1000)),
            ("journal_mode", "WAL"),
            # A commit is on the disk, and not only on its way.
            ("synchronous", "FULL"),
            # What is deleted is overwritten.
            ("secure_delete", "ON"),
        ):
            cursor.execute(f"PRAGMA {name}={value}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begins(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _make_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Nobody else on the machine needs to read it.
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise FailedPreconditionError(f"uri: {path} cannot be opened ({error.strerror}); name another path") from None
    _to_wal(path)


def _to_wal(path: Path) -> None:
    """A new file is turned to WAL by one connection at a time: two at once wait for each other until one gives up."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # Of the folder: to close the file itself would take SQLite's locks of this process away.
        fcntl.flock(folder, fcntl.LOCK_EX)
        # Whatever is wrong with the file, its first connection says.
        with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    finally:
        os.close(folder)


def _checkpointed(path: str) -> bool:
    # A connection of its own: the pool's waits for a reader as long as for a writer, and all who write with it.
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=_EMPTY_TRY_S)) as connection:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.DatabaseError:
        return False
    return not busy


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PoolTimeoutError:
        raise OverloadedError(
            "all connections to the events database are busy; retry later, or raise pool_size",
            reason="CONNECTIONS_BUSY",
        ) from None
    except TimeoutError:
        raise UnavailableError(NAME, "the events database did not answer in time; retry shortly") from None
    except DBAPIError as error:
        meaning = _meaning(error)
        if meaning is None:
            raise
        raise meaning from None
    except OSError:
        raise LostConnectionError from None


def _meaning(error: DBAPIError) -> Exception | None:
    if error.connection_invalidated:
        return LostConnectionError()
    state = str(getattr(error.orig, "sqlstate", None) or "")
    # asyncpg looks at values before it sends them.
    unsendable = isinstance(getattr(error.orig, "__cause__", None), ValueError)
    if isinstance(error, IntegrityError) or state.startswith(_BAD_DATA) or unsendable:
        return RowsRefusedError()
    if isinstance(error, OperationalError) or state.startswith(_TRANSIENT):
        return UnavailableError(NAME)
    return None
