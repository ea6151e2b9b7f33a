"""Milvus Lite: a store inside this process, in a directory that belongs to it alone.

Lite's engine allows one writer and, while a write or a flush runs, no reader: a flush empties the write buffer before
the rows show up in their segment, so a search in between would miss acknowledged rows. `Gate` sees to both.
"""

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from shared.errors import FailedPreconditionError

_log = structlog.get_logger()

_WORKERS = 8
"""Threads of its gRPC server: as many reads at once."""
_MARK = "aisle-open"
"""A file in the directory while a process has it open, and after one that was killed."""
_TOGETHER_NS = 1_000_000_000
"""Files that were written so shortly after one another cannot be told apart by their times."""


_CANNOT_WRITE = 74
"""Exit status: EX_IOERR of sysexits.h."""


class Gate:
    """Lets many readers through at a time, or one writer. A waiting writer goes before readers who come later."""

    def __init__(self) -> None:
        self._readers = 0
        self._writing = False
        self._writers_waiting = 0
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Until the block ends, nobody writes."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._writing and not self._writers_waiting)
            self._readers += 1
        try:
            yield
        finally:
            await asyncio.shield(self._leave(reader=True))

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Until the block ends, nobody else reads or writes."""
        async with self._changed:
            self._writers_waiting += 1
            try:
                await self._changed.wait_for(lambda: not self._writing and not self._readers)
                self._writing = True
            finally:
                self._writers_waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            await asyncio.shield(self._leave(reader=False))

    async def _leave(self, *, reader: bool) -> None:
        async with self._changed:
            if reader:
                self._readers -= 1
            else:
                self._writing = False
            self._changed.notify_all()


class OpenGate(Gate):
    """For stores that look after themselves: everybody passes."""

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Passes."""
        yield

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Passes."""
        yield


class Flusher:
    """Calls `flush` after `rows` new rows, and when rows have been lying for `quiet_s` seconds without another write.

    Never at the cost of a caller: the work runs in a task of its own.
    """

    def __init__(self, flush: Callable[[], Awaitable[None]], rows: int, quiet_s: float) -> None:
        self._flush = flush
        self._rows = rows
        self._quiet_s = quiet_s
        self._pending = 0
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def wrote(self, rows: int) -> None:
        """Tells of `rows` new rows in the buffer."""
        self._pending += rows
        self._wake.set()

    async def close(self) -> None:
        """Stops; what is in the buffer is safe in Lite's log."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while 0 < self._pending < self._rows:
                try:
                    # Not wait_for, which in Python 3.11 loses a cancellation that comes with the event.
                    async with asyncio.timeout(self._quiet_s):
                        await self._wake.wait()
                    self._wake.clear()
                except TimeoutError:
                    break
            if self._pending:
                self._pending = 0
                try:
                    await self._flush()
                except Exception as error:
                    _log.warning("flush failed", why=str(error))


class EmbeddedServer:
    """Milvus Lite, serving the directory `path` on a loopback port of its own choice."""

    def __init__(self, server: Any, database: Any, port: int, mark: Path) -> None:
        self._server = server
        self._database = database
        self._mark = mark
        self.uri = f"http://127.0.0.1:{port}"

    @classmethod
    async def start(cls, path: str) -> "EmbeddedServer":
        """Opens `path`, made if it is not there, and recovers what was written before a crash.

        Raises `FailedPreconditionError`, saying what to do, when another process has it open, when it cannot be
        opened, or when the package is not installed.
        """
        return await asyncio.to_thread(cls._start, Path(path))

    @classmethod
    def _start(cls, path: Path) -> "EmbeddedServer":
        try:
            from milvus_lite import DataDirLockedError, MilvusLiteError
            from milvus_lite.adapter.grpc.server import start_server_in_thread
        except ImportError:
            raise FailedPreconditionError(
                f"{path} is a path, and Milvus Lite is not installed: install aisle[milvus-lite], or set uri to "
                "http://host:port of a Milvus server"
            ) from None
        path = path.expanduser().resolve()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _end_at_io_errors()
            server, database, port = start_server_in_thread(str(path), host="127.0.0.1", port=0, max_workers=_WORKERS)
            # Not before: until here another process may have it open.
            mark = path / _MARK
            _drop_flushed_logs(path)
            if mark.exists():
                _drop_torn_indexes(path)
            mark.touch()
            _open_all(database)
        except DataDirLockedError:
            raise FailedPreconditionError(
                f"{path} is open in another process. Milvus Lite serves one process at a time: stop the other, choose "
                "another path with --uri, or point both at a Milvus server",
                reason="STORE_LOCKED",
            ) from None
        except (OSError, MilvusLiteError) as error:
            raise FailedPreconditionError(f"{path} cannot be opened by Milvus Lite: {error}") from None
        return cls(server, database, port, mark)

    async def close(self) -> None:
        """Lets running calls end, and releases the directory."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._server.stop(grace=2).wait()
        self._database.close()
        self._mark.unlink(missing_ok=True)


@functools.cache
def _end_at_io_errors() -> None:
    """Makes Lite end this process when its log or a segment cannot be written (a full or broken disk).

    It would go on: with the rows of a flush that failed out of sight, and their log removed at the next flush that does
    not; or with a log that cannot be read beyond the row that was half-written. All that was acknowledged is in the
    log, from which the next start reads it. PostgreSQL ends so, and for the same reason, when fsync fails.
    """
    from milvus_lite.db import MilvusLite
    from milvus_lite.engine.collection import Collection
    from milvus_lite.storage.wal import WAL

    for owner, name, guarded in (
        (Collection, "_trigger_flush", _ending),
        (WAL, "write_insert", _ending),
        (WAL, "write_delete", _ending),
        (MilvusLite, "drop_collection", _unflushed),
    ):
        setattr(owner, name, guarded(getattr(owner, name)))


def _unflushed(drop: Callable[..., None]) -> Callable[..., None]:
    """Lite flushes what it is to drop, which cannot be done on a disk that dropping is to make room on."""
    from milvus_lite.storage.memtable import MemTable

    @functools.wraps(drop)
    def dropping(database: Any, name: str, **more: Any) -> None:
        if database.has_collection(name, **more):
            collection = database.get_collection(name, **more)
            collection._memtable = MemTable(collection._schema)
        drop(database, name, **more)

    return dropping


def _ending(write: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(write)
    def ending(*arguments: Any, **named: Any) -> Any:
        try:
            return write(*arguments, **named)
        except OSError as error:
            # What says so may be on the disk that is full.
            with contextlib.suppress(OSError):
                _log.critical("the store cannot be written: make room and start again; nothing is lost", why=str(error))
            os._exit(_CANNOT_WRITE)

    return ending


def _open_all(database: Any) -> None:
    """Lite opens a collection at its first use, and twice where two calls come at once or one gives up waiting: what is
    written to the first is lost with the second, which empties its log."""
    for name in database.list_collections():
        try:
            database.get_collection(name)
        except Exception as error:
            # Whoever uses it learns so. The others serve.
            _log.warning("a collection cannot be opened", collection=name, why=str(error))


def _drop_flushed_logs(path: Path) -> None:
    """A flush puts the rows of the log into a segment, notes that in the manifest, and removes the log. Lite reads a
    log that a kill between the two has left as if its rows were new, and counts and stores each of them twice."""
    from milvus_lite import MilvusLiteError
    from milvus_lite.storage.manifest import Manifest

    for collection in path.glob("collections/*"):
        try:
            first = Manifest.load(str(collection)).active_wal_number
        except MilvusLiteError:
            # Whoever uses the collection learns so.
            continue
        for log in collection.glob("wal/wal_*.arrow"):
            if first is not None and int(log.stem.rpartition("_")[2]) < first:
                _log.info("the process before was killed: its rows are in a segment already", file=log.name)
                log.unlink()


def _drop_torn_indexes(path: Path) -> None:
    """After a kill: Lite writes its index files in place, and cannot load a collection that has half of one. Those that
    are missing it builds anew from the rows. It writes one at a time, so only the last of a folder can be torn."""
    for folder in path.glob("collections/*/partitions/*/indexes"):
        written = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
        last = max(written.values(), default=0)
        for file, at in written.items():
            if at > last - _TOGETHER_NS:
                _log.info("the process before was killed: an index is built anew", file=file.name)
                file.unlink()
