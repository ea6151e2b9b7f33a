"""Items and their vectors, kept and searched. What the service promises is kept here, alike on every home."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import structlog
from pymilvus import MilvusClient

from services.vector_retrieval import expressions, schema
from services.vector_retrieval.browse import Browse, Browsed, most_popular
from services.vector_retrieval.capabilities import Capabilities, probe
from services.vector_retrieval.generations import Generation, Generations, Roles
from services.vector_retrieval.halves import Halves
from services.vector_retrieval.lifecycle import Lifecycle
from services.vector_retrieval.listing import Lister, Page
from services.vector_retrieval.lite import EmbeddedServer, Flusher, Gate, OpenGate
from services.vector_retrieval.milvus import Connection, MissingCollectionError
from services.vector_retrieval.scan import Scanner
from services.vector_retrieval.schema import Row, Vectors
from services.vector_retrieval.search import PREVIOUS_GENERATION, Answer, Consistency, Query, Searcher
from services.vector_retrieval.settings import VectorRetrievalSettings
from services.vector_retrieval.writes import Same, Writer, written
from shared.errors import (
    AisleError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    VersionMismatchError,
)

_log = structlog.get_logger()

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
        halves = Halves(self._connection, self._gate, self._scanner, settings)
        self._searcher = Searcher(halves, settings)
        self._writer = Writer(self._connection, self._gate, self._generations, settings)
        self.lifecycle = Lifecycle(
            self._generations, self._writer, self._scanner, halves, self._gate, shared=settings.is_server
        )
        self._lister = Lister(self._scanner, self._generations, self.lifecycle)
        self._can: Capabilities | None = None
        self._flusher: Flusher | None = None
        if embedded is not None:
            self._flusher = Flusher(self.flush, settings.lite_flush_rows, settings.lite_flush_quiet_s)

    @property
    def roles(self) -> Roles:
        """What generations are for, as last seen."""
        return self._generations.roles

    @property
    def default_index(self) -> schema.VectorIndex:
        """How vectors are indexed where nobody says."""
        return self._generations.default_index

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
        await self._writer.close()
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
        refused, latest = _latest(rows)
        if not latest:
            return refused
        await self._hear_of_changes()
        await self._writer.unheld()
        can = await self.capabilities()
        dimensions = next(iter(latest.values())).vector.shape[0]

        async def into(generation: Generation) -> int:
            _check_made_by(generation, model_version, dimensions)
            count = await self._writer.upsert(latest, generation, can)
            await self._hear_of_changes()
            live = self._generations.roles.live
            if live not in {None, generation, self._generations.promoted}:
                # Swapped meanwhile by another replica: what was written is not where it is looked for.
                raise VersionMismatchError(model_version, live.model_version if live else "")
            return count

        written = await self._on_live(into, lambda: self._generations.ensure(model_version, dimensions, can))
        if self._flusher is not None:
            self._flusher.wrote(written or 0)
        return refused

    async def load(
        self, rows: Sequence[Row], model_version: str, name: str, same: Same
    ) -> tuple[dict[int, list[FieldViolation]], int]:
        """Writes `rows` to the generation `name`, as far as the live one (for the live one: the previous) still has
        them as they are; `same` compares payloads. Returns what is wrong with those refused, and how many were
        changed or deleted since. Raises as `upsert` does, and `NotFoundError`."""
        refused, latest = _latest(rows)
        if not latest:
            return refused, 0
        can = await self.capabilities()
        roles = await self._generations.roles_with(name)
        target = roles.named(name)
        _check_made_by(target, model_version, next(iter(latest.values())).vector.shape[0])
        source = roles.previous if target == roles.live else roles.live
        try:
            outdated = await self._writer.load(latest, target, source, can, same)
        except MissingCollectionError:
            raise NotFoundError("generation", name) from None
        if self._flusher is not None:
            self._flusher.wrote(len(latest) - outdated)
        return refused, outdated

    async def delete(self, ids: Sequence[str]) -> int:
        """Removes the items that are there, and returns how many were."""
        await self._hear_of_changes()
        return await self._on_live(lambda live: self._writer.delete(ids, live), self._generations.live) or 0

    async def list_items(self, name: str, missing_from: str, size: int, after: str) -> Page:
        """See `Lister.page`."""
        return await self._lister.page(name, missing_from, size, after, await self.capabilities())

    async def get(
        self, ids: Sequence[str], *, vectors: bool = False, consistency: Consistency = Consistency.SESSION
    ) -> Fetched:
        """The items that are there, each once."""

        async def out_of(generation: Generation) -> Fetched:
            columns = ["payload", *(["vector"] if vectors else ())]
            by_id = await self._scanner.rows(generation, ids, columns, self._level(consistency))
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

        async def find() -> Generation | None:
            live = await self._generations.live()
            return self._generations.roles.made_by(query.model_version) if query.uses_vectors else live

        async def within(generation: Generation) -> Answer:
            if query.vectors is not None and query.uses_vectors:
                _check_made_by(generation, query.model_version, query.vectors.shape[1])
            answer = await self._searcher.search(query, generation, can, self._level(query.consistency))
            if generation == self._generations.roles.previous:
                answer = replace(answer, degraded=(*answer.degraded, PREVIOUS_GENERATION))
            return answer

        found = await self._on_live(within, find)
        return found or Answer([[] for _ in range(query.size)])

    async def browse(self, asked: Browse) -> Browsed:
        """Items by a filter alone, the most popular first, as of a few moments ago; none before the first write."""
        can = await self.capabilities()

        async def out_of(generation: Generation) -> Browsed:
            level = self._level(Consistency.BOUNDED)
            return await most_popular(self._scanner, generation, can, asked, level)

        return await self._on_live(out_of, self._generations.live) or Browsed()

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
            await self._generations.refresh()
            live = await find()
            if live == known and isinstance(error, VersionMismatchError):
                raise
        if live is None:
            return None
        try:
            return await work(live)
        except MissingCollectionError:
            raise UnavailableError("milvus", "the index is being replaced; retry shortly") from None

    async def _hear_of_changes(self) -> None:
        """Before a write, and after it: another replica may have built or promoted a generation, or hold writes. Takes
        a millisecond or two, of the many that a write takes."""
        if self._settings.is_server:
            await self._generations.refresh()

    def _level(self, consistency: Consistency) -> str:
        if consistency is not Consistency.SESSION:
            return consistency
        recent = time.monotonic() - self._writer.wrote_at < _SESSION_S
        return Consistency.STRONG if recent else Consistency.BOUNDED

    async def create_generation(self, model_version: str, dimensions: int, index: schema.VectorIndex) -> Generation:
        """A new generation beside the live one. Raises `FailedPreconditionError` when one is being built already."""
        can = await self.capabilities()
        async with self._gate.writing():
            return await self._generations.build(model_version, dimensions, can, index)

    async def list_generations(self) -> tuple[list[tuple[Generation, int]], Roles]:
        """All generations, the newest first, with their items (0 for those that nobody uses), and what they are for."""
        await self._generations.refresh()
        roles = self._generations.roles
        return [(g, await self._count(g) if g in roles.all() else 0) for g in await self._generations.every()], roles

    async def _count(self, generation: Generation) -> int:
        try:
            return await self._scanner.count(generation, "", self._level(Consistency.SESSION))
        except MissingCollectionError:
            # Dropped this moment.
            return 0

    async def flush(self) -> None:
        """Moves new rows into indexed segments. Durable they were before; this makes searching them fast."""
        await self._generations.live()
        for generation in self._generations.roles.all():
            async with self._gate.writing():
                await self._connection.write("flush", partial(_flush, generation.collection))
        await self._writer.flush_deletes()


def _flush(collection: str, client: MilvusClient) -> None:
    client.flush(collection, retry_times=0)


def _latest(rows: Sequence[Row]) -> tuple[dict[int, list[FieldViolation]], dict[str, Row]]:
    """What is wrong with the rows that cannot be stored, by position, and of the others the latest of each item."""
    refused = {i: found for i, row in enumerate(rows) if (found := list(schema.violations(row)))}
    latest: dict[str, Row] = {}
    for index, row in enumerate(rows):
        known = latest.get(row.item.id)
        if index not in refused and (known is None or written(known) <= written(row)):
            latest[row.item.id] = row
    return refused, latest


def _check_made_by(generation: Generation, model_version: str, dimensions: int) -> None:
    if generation.model_version != model_version:
        raise VersionMismatchError(model_version, generation.model_version)
    if generation.dimensions != dimensions:
        raise InvalidArgumentError.of(
            "embeddings.dimensions", f"must be {generation.dimensions}, as in the index, and is {dimensions}"
        )
