"""Items and their vectors, kept and searched. What the service promises is kept here, alike on every home."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import structlog
from pymilvus import MilvusClient

from services.vector_retrieval import expressions, schema
from services.vector_retrieval.capabilities import Capabilities, probe
from services.vector_retrieval.generations import Generation, Generations
from services.vector_retrieval.halves import Halves
from services.vector_retrieval.lite import EmbeddedServer, Flusher, Gate, OpenGate
from services.vector_retrieval.milvus import Connection, MissingCollectionError
from services.vector_retrieval.scan import Scanner
from services.vector_retrieval.schema import Row, Vectors
from services.vector_retrieval.search import Answer, Consistency, Query, Searcher
from services.vector_retrieval.settings import VectorRetrievalSettings
from shared.errors import (
    AisleError,
    DeadlineError,
    FieldViolation,
    InvalidArgumentError,
    UnavailableError,
    VersionMismatchError,
)
from shared.rpc import deadline

_log = structlog.get_logger()

_LOCK_STRIPES = 256

_SESSION_S = 10.0
"""How long after a write of this process a session read is strong: beyond what a bounded read may lag (5 s)."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Fetched:
    """Items that were found, in the order they were asked for."""

    payloads: list[bytes] = field(default_factory=list)
    vectors: Vectors | None = None
    model_version: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """What the index holds; no generation before the first write."""

    generation: Generation | None
    items: int
    capabilities: Capabilities


class Store:
    """The index at `settings.uri`."""

    def __init__(self, settings: VectorRetrievalSettings, uri: str, embedded: EmbeddedServer | None) -> None:
        self._settings = settings
        self._embedded = embedded
        self._connection = Connection(uri, settings)
        self._generations = Generations(self._connection, settings)
        self._gate = Gate() if embedded is not None else OpenGate()
        self._scanner = Scanner(self._connection, self._gate)
        self._searcher = Searcher(Halves(self._connection, self._gate, self._scanner, settings), settings)
        self._stripes = [asyncio.Lock() for _ in range(_LOCK_STRIPES)]
        self._can: Capabilities | None = None
        self._wrote_at = -math.inf
        self._running: set[asyncio.Task[Any]] = set()
        self._flusher: Flusher | None = None
        if embedded is not None:
            self._flusher = Flusher(self.flush, settings.lite_flush_rows, settings.lite_flush_quiet_s)

    @classmethod
    async def open(cls, settings: VectorRetrievalSettings) -> "Store":
        """The store, as far as it can be reached: a server that is down is looked for again by each call.

        Raises `FailedPreconditionError` when a Milvus Lite path cannot be opened.
        """
        embedded = None if settings.is_server else await EmbeddedServer.start(settings.uri)
        store = cls(settings, embedded.uri if embedded is not None else settings.uri, embedded)
        try:
            can = await store.capabilities()
            _log.info("store reached", home=can.home, version=can.version, lexical=can.lexical)
            if await store._generations.refresh() is not None and store._flusher is not None:
                # What a crash left in the write buffer is searched row by row until it is flushed.
                store._flusher.wrote(1)
        except AisleError as error:
            _log.warning("store is not ready yet", why=str(error))
        return store

    async def close(self) -> None:
        """Lets writes that have begun end, and disconnects."""
        if self._running:
            await asyncio.wait(self._running)
        if self._flusher is not None:
            await self._flusher.close()
        await self._connection.close()
        if self._embedded is not None:
            await self._embedded.close()

    async def check(self) -> str | None:
        """`None` when the store answers and the live generation, if there is one, can be searched."""
        try:
            await self.capabilities()
            live = await self._generations.refresh()
            if live is not None:
                await self._connection.read("query", live.collection, filter=expressions.NEVER, output_fields=["id"])
        except MissingCollectionError:
            return "the live generation is gone"
        except AisleError as error:
            return error.message
        return None

    async def capabilities(self) -> Capabilities:
        """What the store can do, asked once it is reached."""
        if self._can is None:
            self._can = probe(str(await self._connection.read("get_server_version")))
        return self._can

    async def status(self) -> Status:
        """What the index holds now."""
        can = await self.capabilities()
        live = await self._generations.refresh()
        if live is None:
            return Status(None, 0, can)
        return Status(live, await self._scanner.count(live, "", self._level(Consistency.SESSION)), can)

    async def upsert(self, rows: Sequence[Row], model_version: str) -> dict[int, list[FieldViolation]]:
        """Writes `rows`, whose vectors `model_version` made; returns what is wrong with those refused, by position.

        Of two rows of one item, in the index or in `rows`, the later `updated_at` stays; of equals, the one written
        last. Every other row is durable on return. Raises `VersionMismatchError` when the index is another model's,
        `InvalidArgumentError` when the vectors have another length.
        """
        refused = {i: found for i, row in enumerate(rows) if (found := list(schema.violations(row)))}
        latest: dict[str, Row] = {}
        for index, row in enumerate(rows):
            known = latest.get(row.item.id)
            if index not in refused and (known is None or _written(known) <= _written(row)):
                latest[row.item.id] = row
        if not latest:
            return refused
        written = await self._upsert(latest, model_version)
        if self._flusher is not None:
            self._flusher.wrote(written)
        return refused

    async def _upsert(self, rows: Mapping[str, Row], model_version: str) -> int:
        can = await self.capabilities()
        dimensions = next(iter(rows.values())).vector.shape[0]

        async def into(generation: Generation) -> int:
            _check_made_by(generation, model_version, dimensions)

            def work(client: MilvusClient) -> int:
                stored = _read_columns(client, generation, rows, "updated_at")
                newer = [r for r in rows.values() if _written(r) >= stored.get(r.item.id, _written(r))]
                if newer:
                    client.upsert(generation.collection, [schema.to_store(r, can) for r in newer], retry_times=0)
                return len(newer)

            return await self._write(rows, work)

        written = await self._on_live(into, lambda: self._generations.ensure(model_version, dimensions, can))
        return written or 0

    async def delete(self, ids: Sequence[str]) -> int:
        """Removes the items that are there, and returns how many were."""

        async def out_of(generation: Generation) -> int:
            def work(client: MilvusClient) -> int:
                stored = _read_columns(client, generation, ids, "updated_at")
                if stored:
                    client.delete(generation.collection, ids=list(stored), retry_times=0)
                return len(stored)

            return await self._write(ids, work)

        return await self._on_live(out_of, self._generations.live) or 0

    async def get(
        self, ids: Sequence[str], *, vectors: bool = False, consistency: Consistency = Consistency.SESSION
    ) -> Fetched:
        """The items that are there, each once."""

        async def out_of(generation: Generation) -> Fetched:
            async with self._gate.reading():
                found = await self._connection.read(
                    "query",
                    generation.collection,
                    filter=expressions.ids_in(ids),
                    output_fields=["id", "payload", *(["vector"] if vectors else ())],
                    consistency_level=self._level(consistency),
                )
            by_id: dict[str, Mapping[str, Any]] = {row["id"]: row for row in found}
            ordered = [by_id[i] for i in dict.fromkeys(ids) if i in by_id]
            payloads = [schema.payload_of(row["payload"]) for row in ordered]
            if not vectors:
                return Fetched(payloads)
            stacked = np.array([row["vector"] for row in ordered], dtype=np.float32)
            return Fetched(payloads, stacked.reshape(-1, generation.dimensions), generation.model_version)

        return await self._on_live(out_of, self._generations.live) or Fetched()

    async def search(self, query: Query) -> Answer:
        """The best candidates for each query of the batch; none before the first write."""
        can = await self.capabilities()

        async def within(generation: Generation) -> Answer:
            if query.vectors is not None and query.uses_vectors:
                _check_made_by(generation, query.model_version, query.vectors.shape[1])
            return await self._searcher.search(query, generation, can, self._level(query.consistency))

        found = await self._on_live(within, self._generations.live)
        return found or Answer([[] for _ in range(query.size)])

    async def _on_live(
        self, work: Callable[[Generation], Awaitable[Result]], find: Callable[[], Awaitable[Generation | None]]
    ) -> Result | None:
        """What `work` returns for the generation that `find` gives; `None` where there is none.

        Another replica may have swapped or dropped the generation since it was last seen, so what fails because of
        which generation it is runs once more on the one that is live now.
        """
        known = await find()
        if known is None:
            return None
        try:
            return await work(known)
        except (MissingCollectionError, VersionMismatchError) as error:
            if await self._generations.refresh() == known and isinstance(error, VersionMismatchError):
                raise
        live = await find()
        if live is None:
            return None
        try:
            return await work(live)
        except MissingCollectionError:
            raise UnavailableError("milvus", "the index is being replaced; retry shortly") from None

    async def _write(self, ids: Iterable[str], work: Callable[[MilvusClient], int]) -> int:
        """Runs `work` while nobody else writes these ids. Goes on when the caller's time is up: see `Gate`."""
        timeout_s = deadline.timeout_s(self._settings.write_timeout_s)

        async def run() -> int:
            async with self._locked(ids), self._gate.writing():
                try:
                    return await self._connection.write(work)
                finally:
                    self._wrote_at = time.monotonic()

        try:
            return await asyncio.wait_for(asyncio.shield(self._start(run())), timeout_s)
        except TimeoutError:
            raise DeadlineError("the store did not confirm the write in time; it may yet be done") from None

    def _level(self, consistency: Consistency) -> str:
        if consistency is not Consistency.SESSION:
            return consistency
        recent = time.monotonic() - self._wrote_at < _SESSION_S
        return Consistency.STRONG if recent else Consistency.BOUNDED

    def _start(self, work: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Asked for, so that asyncio does not report an error whose caller has left.
            task.exception()

    @contextlib.asynccontextmanager
    async def _locked(self, ids: Iterable[str]) -> AsyncIterator[None]:
        """Held so that reading `updated_at` and writing are one step for this process. In a fixed order, so that
        two batches cannot wait for each other."""
        async with contextlib.AsyncExitStack() as stack:
            for stripe in sorted({hash(i) % _LOCK_STRIPES for i in ids}):
                await stack.enter_async_context(self._stripes[stripe])
            yield

    async def flush(self) -> None:
        """Moves new rows into indexed segments. Durable they were before; this makes searching them fast."""
        live = await self._generations.live()
        if live is not None:
            async with self._gate.writing():
                await self._connection.write(lambda client: client.flush(live.collection, retry_times=0))


def _written(row: Row) -> int:
    return schema.micros(schema.updated_at(row.item))


def _read_columns(client: MilvusClient, generation: Generation, ids: Iterable[str], column: str) -> dict[str, Any]:
    """The column of the items that are there, by id, as of now and not of a moment ago."""
    found = client.query(
        generation.collection,
        filter=expressions.ids_in(ids),
        output_fields=["id", column],
        consistency_level="Strong",
        retry_times=0,
    )
    return {row["id"]: row[column] for row in found}


def _check_made_by(generation: Generation, model_version: str, dimensions: int) -> None:
    if generation.model_version != model_version:
        raise VersionMismatchError(model_version, generation.model_version)
    if generation.dimensions != dimensions:
        raise InvalidArgumentError.of(
            "embeddings.dimensions", f"must be {generation.dimensions}, as in the index, and is {dimensions}"
        )
