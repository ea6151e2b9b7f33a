"""The connection to Milvus: calls that never block the event loop, end in time, and fail with Aisle's own errors.

Reads go through pymilvus's asynchronous client. Writes and changes of schema go through its synchronous one on a few
threads: preparing a thousand rows takes tens of milliseconds, during which the event loop must serve searches. (Its
asynchronous client also cannot create an index on Milvus Lite, which has no AllocTimestamp.)
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
import structlog
from pymilvus import AsyncMilvusClient, MilvusClient, MilvusException

from services.vector_retrieval.settings import VectorRetrievalSettings
from shared.errors import InternalError, OverloadedError, UnavailableError
from shared.rpc import deadline
from shared.telemetry import metrics, tracing

_log = structlog.get_logger()

_NAME = "milvus"

# Milvus has two numberings of errors: `code` since 2.3.2, `compatible_code` before. Lite mixes them.
_NOT_FOUND = (100, 4)
_RATE_LIMITED = ((8, 9), (49,))
_OUR_MISTAKE = ((1100, 6), (5, 6))

_TLS_SIGNS = ("handshake failed", "verification check failed")
"""In what gRPC says of a connection: a certificate of another authority, or name, or none."""

WRITE_THREADS = 4
"""Writes at a time, of one process."""

Result = TypeVar("Result")


class MissingCollectionError(Exception):
    """The collection or alias does not exist."""


def silence_libraries() -> None:
    """Keeps pymilvus and Milvus Lite from printing stack traces of errors that are handled here."""
    for name in ("pymilvus", "pymilvus.milvus_client", "milvus_lite.adapter", "milvus_lite.server_manager"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class Connection:
    """Milvus at `uri`. Connects on first use, and again by itself when the store was gone."""

    def __init__(self, uri: str, settings: VectorRetrievalSettings) -> None:
        silence_libraries()
        self._settings = settings
        self._arguments: dict[str, Any] = {
            "uri": uri,
            "user": settings.user,
            "password": settings.password.get_secret_value(),
            "token": settings.token.get_secret_value(),
            "db_name": settings.database,
            "timeout": settings.connect_timeout_s,
            "dedicated": True,
            **_tls(settings),
        }
        self._reader: AsyncMilvusClient | None = None
        self._connecting = asyncio.Lock()
        self._writer: MilvusClient | None = None
        self._threads = ThreadPoolExecutor(WRITE_THREADS, thread_name_prefix="milvus-write")

    async def read(self, method: str, *arguments: Any, cap_s: float | None = None, **options: Any) -> Any:
        """What `AsyncMilvusClient.<method>` returns; takes as long as `ask`, and raises as it does."""
        return await self.ask(
            method, lambda client: getattr(client, method)(*arguments, retry_times=0, **options), cap_s=cap_s
        )

    async def ask(
        self, operation: str, work: Callable[[AsyncMilvusClient], Awaitable[Result]], *, cap_s: float | None = None
    ) -> Result:
        """What `work` returns; it is timed as `operation`.

        Takes at most `cap_s` seconds (default `search_timeout_s`), and no longer than the caller's deadline. Raises
        `MissingCollectionError`, `UnavailableError`, `DeadlineError`, `OverloadedError` or `InternalError`.
        """
        with _aisle_errors(), _watched(operation):
            async with deadline.within(cap_s or self._settings.search_timeout_s):
                return await work(await self._connected())

    async def write(self, operation: str, work: Callable[[MilvusClient], Result]) -> Result:
        """What `work` returns, run on a thread of its own and timed as `operation`.

        Raises as `read` does. Work that has begun goes on to its end whoever waits, so that no write overlaps
        another which was thought to be over.
        """
        loop = asyncio.get_running_loop()
        with _aisle_errors(), _watched(operation):
            return await loop.run_in_executor(self._threads, self._run, work)

    async def close(self) -> None:
        """Waits for running writes and disconnects."""
        await asyncio.to_thread(self._threads.shutdown)
        if self._reader is not None:
            with contextlib.suppress(MilvusException, grpc.RpcError):
                await self._reader.close()
        if self._writer is not None:
            with contextlib.suppress(MilvusException, grpc.RpcError):
                await asyncio.to_thread(self._writer.close)

    async def _connected(self) -> AsyncMilvusClient:
        if self._reader is None:
            async with self._connecting:
                if self._reader is None:
                    client = AsyncMilvusClient(**self._arguments)
                    # Connecting is part of the first call otherwise, and fails it in ways of its own.
                    await client._connect()
                    self._reader = client
        return self._reader

    def _run(self, work: Callable[[MilvusClient], Result]) -> Result:
        if self._writer is None:
            self._writer = MilvusClient(**self._arguments)
        return work(self._writer)


def _tls(settings: VectorRetrievalSettings) -> dict[str, Any]:
    if not settings.uri.startswith("https://"):
        return {}
    options: dict[str, Any] = {"secure": True}
    if settings.tls_ca_file is not None:
        options["server_pem_path"] = str(settings.tls_ca_file)
    if settings.tls_server_name:
        options["server_name"] = settings.tls_server_name
    return options


@contextlib.contextmanager
def _watched(operation: str) -> Iterator[None]:
    span = tracing.span(f"milvus {operation}", {"db.system.name": _NAME, "db.operation.name": operation})
    with span, metrics.STORE_SECONDS.labels(operation).time():
        yield


@contextlib.contextmanager
def _aisle_errors() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise UnavailableError(_NAME, "the store does not answer in time; retry shortly") from None
    except MilvusException as error:
        raise _translated(error) from error
    except grpc.RpcError as error:
        raise _unreached(error) from error


def _translated(error: MilvusException) -> Exception:
    code, old = error.code, error.compatible_code
    if code == _NOT_FOUND[0] or old == _NOT_FOUND[1]:
        return MissingCollectionError(str(error.message))
    if code in _RATE_LIMITED[0] or old in _RATE_LIMITED[1]:
        return OverloadedError("the store refuses more writes for now", reason="STORE_RATE_LIMIT")
    if code in _OUR_MISTAKE[0] or old in _OUR_MISTAKE[1]:
        # Callers' arguments were checked before, so this is a bug of ours.
        _log.error("milvus refused a request", code=str(code))
        # May quote what was stored or asked for.
        _log.debug("milvus refused a request", why=str(error.message)[:500])
        return InternalError("the store refused the request; see the log of vector_retrieval")
    # pymilvus reports any failure to connect alike; what was told is behind it.
    if isinstance(error.__cause__, grpc.RpcError):
        return _unreached(error.__cause__)
    _log.debug("milvus call failed", code=str(code), why=str(error.message)[:200])
    return UnavailableError(_NAME)


def _unreached(error: grpc.RpcError) -> UnavailableError:
    """With the settings to look at, where the store or the connection says what it is about."""
    code, details = error.code(), str(error.details())
    _log.debug("milvus call failed", code=str(code))
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return UnavailableError(
            _NAME, "the store refuses the credentials: check the settings user and password, or token"
        )
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return UnavailableError(_NAME, "the store does not let its user do this: check the setting user, or its rights")
    if any(sign in details for sign in _TLS_SIGNS):
        return UnavailableError(
            _NAME, "the store's TLS does not fit: check the settings uri, tls_ca_file and tls_server_name"
        )
    return UnavailableError(_NAME)
