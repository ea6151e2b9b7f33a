"""Index generations: a collection `<index>_<generation>` each, made for one model version, the live one behind the
alias `<index>` (`items`).

Searches name the collection of the generation they have checked the model version against, never the alias, so a
swap in between cannot let vectors of two versions meet.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from pymilvus import MilvusClient, MilvusException

from services.vector_retrieval import schema
from services.vector_retrieval.capabilities import Capabilities
from services.vector_retrieval.milvus import Connection, MissingCollectionError
from services.vector_retrieval.settings import VectorRetrievalSettings
from shared.errors import FailedPreconditionError, UnavailableError
from shared.rpc import deadline

_VERSION_KEY = "aisle.model_version"
_LAYOUT_KEY = "aisle.layout"
_LAYOUT = "1"
"""Of rows (`schema`): raised when rows of an older layout cannot be read or filtered any more."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Generation:
    """One index: whose vectors it holds, and what it can answer."""

    name: str
    collection: str
    """The Milvus collection."""
    model_version: str
    dimensions: int
    lexical: bool
    """Whether it can be searched by words; a store that has learnt BM25 since does not change that."""


class Generations:
    """Finds, makes and loads generations."""

    def __init__(self, connection: Connection, settings: VectorRetrievalSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._alias = settings.index
        self._live: Generation | None = None
        self._creating = asyncio.Lock()
        self._making: asyncio.Task[None] | None = None
        self._loading: tuple[Generation, asyncio.Task[None]] | None = None

    async def live(self) -> Generation | None:
        """The live generation, as last seen; asks the store where none has been seen yet."""
        return self._live or await self.refresh()

    async def refresh(self) -> Generation | None:
        """The live generation as the store knows it now, loaded; `None` before the first write."""
        try:
            found = _parse(await self._connection.read("describe_collection", self._alias), self._alias)
        except MissingCollectionError:
            self._live = None
            return None
        if found != self._live:
            await self._load(found)
        if found != self._live:
            self._live = found
            _log.info("generation is live", generation=found.name, model_version=found.model_version)
        return found

    async def ensure(self, model_version: str, dimensions: int, can: Capabilities) -> Generation:
        """The live generation; the first write of a shop makes it, for the model that wrote."""
        async with self._creating:
            live = await self.live()
            if live is None:
                # Finished even if the caller gives up, so that the next one finds it done or further on.
                if self._making is None or self._making.done():
                    self._making = asyncio.create_task(self._bootstrap(model_version, dimensions, can))
                await _wait(
                    self._making, self._settings.write_timeout_s, "the first index is being made; retry shortly"
                )
                live = await self.refresh()
        if live is None:
            raise UnavailableError("milvus", "the first index could not be made; retry shortly")
        return live

    async def _bootstrap(self, model_version: str, dimensions: int, can: Capabilities) -> None:
        collection = f"{self._alias}_{_new_name(model_version)}"

        def work(client: MilvusClient) -> None:
            client.create_collection(
                collection,
                schema=schema.collection_schema(dimensions, can),
                properties={_VERSION_KEY: model_version, _LAYOUT_KEY: _LAYOUT},
                consistency_level="Bounded",
            )
            # Not waited for: an empty index is ready at once, and the wait polls each half second.
            client.create_index(collection, schema.index_params(self._settings, can), sync=False)
            # Before it has the alias, so that nobody meets it unloaded.
            client.load_collection(collection)
            try:
                client.create_alias(collection, self._alias)
            except MilvusException:
                # Another replica was first; its generation is the one.
                with suppress(MilvusException):
                    client.drop_collection(collection)

        await self._connection.write(work)

    async def _load(self, generation: Generation) -> None:
        """Loads it, which goes on when the caller's time is up, so that the next caller finds it further on."""
        if self._loading is None or self._loading[0] != generation or self._loading[1].done():
            work = self._connection.write(lambda client: client.load_collection(generation.collection))
            self._loading = generation, asyncio.ensure_future(work)
        await _wait(
            self._loading[1],
            self._settings.search_timeout_s,
            f"generation {generation.name} is being loaded; retry shortly",
        )


async def _wait(task: "asyncio.Future[None]", cap_s: float, otherwise: str) -> None:
    """Waits for `task`, which goes on when the caller's time is up."""
    try:
        await asyncio.wait_for(asyncio.shield(task), deadline.timeout_s(cap_s))
    except TimeoutError:
        raise UnavailableError("milvus", otherwise, reason="INDEX_LOADING") from None


def _new_name(model_version: str) -> str:
    """Sorts by time, and tells replicas that start together apart by the model at least."""
    now = datetime.now(UTC)
    digest = hashlib.blake2b(f"{model_version}/{now.isoformat()}".encode(), digest_size=4).hexdigest()
    return f"{now:%Y%m%d%H%M%S}_{digest}"


def _parse(described: Mapping[str, Any], alias: str) -> Generation:
    collection = str(described["collection_name"])
    properties = described.get("properties") or {}
    model_version = properties.get(_VERSION_KEY)
    if model_version is None or not collection.startswith(f"{alias}_"):
        raise FailedPreconditionError(
            f"the alias {alias!r} belongs to collection {collection!r}, which Aisle did not make; choose another "
            "index or database"
        )
    if properties.get(_LAYOUT_KEY) != _LAYOUT:
        raise FailedPreconditionError(
            f"collection {collection!r} has row layout {properties.get(_LAYOUT_KEY)!r} and this version of Aisle "
            f"reads {_LAYOUT!r}; re-index"
        )
    fields = {field["name"]: field for field in described["fields"]}
    return Generation(
        name=collection.removeprefix(f"{alias}_"),
        collection=collection,
        model_version=str(model_version),
        dimensions=int(fields["vector"]["params"]["dim"]),
        lexical="sparse" in fields,
    )
