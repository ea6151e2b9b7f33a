"""Index generations: a collection `<index>_<generation>` each, made for one model version, and what each is for:

    live       behind the alias `<index>` (`items`)
    building   behind `<index>__building`: made beside the live one, and not searched
    previous   behind `<index>__previous`: was live before, and answers the queries of its model

Searches name the collection of the generation they have checked the model version against, never the alias, so a
swap in between cannot let vectors of two versions meet.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Mapping
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
from shared.errors import FailedPreconditionError, NotFoundError, UnavailableError
from shared.rpc import deadline

_VERSION_KEY = "aisle.model_version"
_LAYOUT_KEY = "aisle.layout"
_INDEX_TYPE_KEY = "aisle.index_type"
_IVF_NLIST_KEY = "aisle.ivf_nlist"
_HOLD_KEY = "aisle.hold_until"
"""Of the live collection: when writes go on, in seconds since 1970. Replicas see it, whose clocks may differ by less
than the time that writes are held for."""
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
    index_type: schema.IndexType
    ivf_nlist: int
    """Of IVF_FLAT, the lists that vectors are sorted into; else 0."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Which generation is for what."""

    live: Generation | None = None
    building: Generation | None = None
    previous: Generation | None = None

    def all(self) -> list[Generation]:
        """Those that are for something, the live one first."""
        return [g for g in (self.live, self.building, self.previous) if g is not None]

    def named(self, name: str) -> Generation:
        """Raises `NotFoundError` where none has that name."""
        for generation in self.all():
            if generation.name == name:
                return generation
        raise NotFoundError("generation", name)

    def made_by(self, model_version: str) -> Generation | None:
        """The one to ask with vectors of `model_version`: the previous one where it is that model's, and the live
        one is not."""
        if self.live is not None and self.previous is not None and self.live.model_version != model_version:
            return self.previous if self.previous.model_version == model_version else self.live
        return self.live


class Generations:
    """Finds, makes and loads generations."""

    def __init__(self, connection: Connection, settings: VectorRetrievalSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._alias = settings.index
        self._building = f"{settings.index}__building"
        self._previous = f"{settings.index}__previous"
        self._roles = Roles()
        self._changes = 0
        """Ends of changes that this process made: what was read across one may be of before."""
        self.promoted: Generation | None = None
        """What this process made live last: it saw to its own writes before."""
        self._held_until = 0.0
        self._held: Generation | None = None
        self._creating = asyncio.Lock()
        self._making: asyncio.Task[None] | None = None
        self._loading: dict[Generation, asyncio.Future[None]] = {}
        self.default_index = schema.VectorIndex(
            schema.IndexType.HNSW, settings.hnsw_m, settings.hnsw_ef_construction, settings.ivf_nlist
        )
        """How vectors are indexed where nobody says."""

    @property
    def roles(self) -> Roles:
        """As last seen."""
        return self._roles

    async def live(self) -> Generation | None:
        """The live generation, as last seen; asks the store where none has been seen yet."""
        return self._roles.live or await self.refresh()

    async def roles_with(self, *names: str) -> Roles:
        """What generations are for, asked anew where one of `names` is not known: another replica may have made it."""
        known = {g.name for g in self._roles.all()}
        if not known.issuperset(name for name in names if name) or not known:
            await self.refresh()
        return self._roles

    async def refresh(self) -> Generation | None:
        """The live generation as the store knows it now, loaded; `None` before the first write."""
        changes = self._changes
        live, building, previous = await asyncio.gather(
            *(self._behind(alias) for alias in (self._alias, self._building, self._previous))
        )
        # A change of roles takes several steps, of which the one that moves the live alias counts.
        found = Roles(
            live, building if building != live else None, previous if previous not in {live, building} else None
        )
        known = self._roles.all()
        for generation in found.all():
            if generation not in known:
                await self._load(generation)
        if changes != self._changes:
            # A write would go where it went before the swap, and be found by nobody.
            return await self.refresh()
        if found != self._roles:
            self._roles = found
            _log.info("generations", **{g.name: g.model_version for g in found.all()}, live=live.name if live else "")
        return live

    async def _behind(self, alias: str) -> Generation | None:
        try:
            described = await self._connection.read("describe_collection", alias)
        except MissingCollectionError:
            return None
        if alias == self._alias and self._settings.is_server:
            self._held_until = float((described.get("properties") or {}).get(_HOLD_KEY, 0.0))
        return _parse(described, alias, self._alias)

    def held_for(self) -> float:
        """Seconds for which the writes of the shop are held yet, as last seen; 0 where they are not."""
        return max(0.0, min(self._held_until - time.time(), self._settings.cut_over_hold_s))

    async def hold(self) -> None:
        """Holds the writes of all replicas for `cut_over_hold_s`, or until `release`."""
        self._held = self._roles.live
        await self._hold_until(time.time() + self._settings.cut_over_hold_s)

    async def release(self) -> None:
        """Ends a hold."""
        if self._held is not None:
            await self._hold_until(0.0)
            self._held = None

    async def _hold_until(self, until: float) -> None:
        self._held_until = until
        if self._held is not None and self._settings.is_server:
            # Milvus Lite cannot alter properties, and has nobody else to tell.
            name = self._held.collection
            await self._connection.write(
                "alter_collection", lambda c: c.alter_collection_properties(name, {_HOLD_KEY: f"{until:.3f}"})
            )

    async def every(self) -> list[Generation]:
        """All there are, for something or not, the newest first."""
        own = re.compile(rf"{re.escape(self._alias)}_\d{{14}}_[0-9a-f]{{8}}")
        names = [n for n in await self._connection.read("list_collections") if own.fullmatch(n)]
        found = [await self._behind(name) for name in sorted(names, reverse=True)]
        return [generation for generation in found if generation is not None]

    async def ensure(self, model_version: str, dimensions: int, can: Capabilities) -> Generation:
        """The live generation; the first write of a shop makes it, for the model that wrote."""
        async with self._creating:
            live = await self.live()
            if live is None:
                # Finished even if the caller gives up, so that the next one finds it done or further on.
                if self._making is None or self._making.done():
                    self._making = asyncio.create_task(
                        self._make(self._alias, model_version, dimensions, can, self.default_index)
                    )
                await _wait(
                    self._making, self._settings.write_timeout_s, "the first index is being made; retry shortly"
                )
                live = await self.refresh()
        if live is None:
            raise UnavailableError("milvus", "the first index could not be made; retry shortly")
        return live

    async def build(
        self, model_version: str, dimensions: int, can: Capabilities, index: schema.VectorIndex
    ) -> Generation:
        """A new generation in the role of the one being built. Raises `FailedPreconditionError` when there is one
        already, or no live one to build beside."""
        async with self._creating:
            await self.refresh()
            if self._roles.live is None:
                raise FailedPreconditionError("nothing is live yet: the first write of a shop makes its generation")
            if self._roles.building is None:
                if await self._behind(self._building) == self._roles.live:
                    # What a promotion leaves that was cut off before its last step.
                    await self._connection.write("drop_alias", lambda client: client.drop_alias(self._building))
                await self._make(self._building, model_version, dimensions, can, index)
                await self.refresh()
                if self._roles.building is not None:
                    return self._roles.building
        known = self._roles.building
        raise FailedPreconditionError(
            f"generation {known.name if known else ''} is being built: promote or drop it first", reason="BUILDING"
        )

    async def swap(self, target: Generation) -> None:
        """Makes `target` live, and what was live the previous one."""
        roles = self._roles
        live, before = roles.live, roles.previous

        def work(client: MilvusClient) -> None:
            if live is not None:
                _point(client, self._previous, live.collection)
            _point(client, self._alias, target.collection)
            if target == roles.building:
                client.drop_alias(self._building)
            if before is not None and before != target:
                # Nobody asks it any more; its memory is wanted for the next.
                client.release_collection(before.collection)

        await self._change("swap_generation", work)
        self._roles = Roles(target, None if target == roles.building else roles.building, live)
        self.promoted = target

    async def drop(self, target: Generation) -> None:
        """Deletes `target`, which must not be live."""
        roles = self._roles

        def work(client: MilvusClient) -> None:
            if target == roles.building:
                client.drop_alias(self._building)
            if target == roles.previous:
                client.drop_alias(self._previous)
            client.drop_collection(target.collection)

        await self._change("drop_generation", work)
        self._loading.pop(target, None)
        self._roles = Roles(
            roles.live,
            None if target == roles.building else roles.building,
            None if target == roles.previous else roles.previous,
        )

    async def _change(self, operation: str, work: Callable[[MilvusClient], None]) -> None:
        """Does `work`, which moves roles; nobody knows them until it is done."""
        # Not asked for: the caller's time may be up, and a write must not go where it went before.
        self._roles = Roles()
        try:
            await self._connection.write(operation, work)
        finally:
            self._changes += 1

    async def _make(
        self, alias: str, model_version: str, dimensions: int, can: Capabilities, index: schema.VectorIndex
    ) -> None:
        collection = f"{self._alias}_{_new_name(model_version)}"
        words = schema.Bm25Params(self._settings.bm25_k1, self._settings.bm25_b)
        properties = {_VERSION_KEY: model_version, _LAYOUT_KEY: _LAYOUT, _INDEX_TYPE_KEY: str(index.type)}
        if index.type is schema.IndexType.IVF_FLAT:
            properties[_IVF_NLIST_KEY] = str(index.ivf_nlist)

        def work(client: MilvusClient) -> None:
            client.create_collection(
                collection,
                schema=schema.collection_schema(dimensions, can),
                properties=properties,
                consistency_level="Bounded",
            )
            # Not waited for: an empty index is ready at once, and the wait polls each half second.
            client.create_index(collection, schema.index_params(index, words, can), sync=False)
            # Before it has the alias, so that nobody meets it unloaded.
            client.load_collection(collection)
            try:
                client.create_alias(collection, alias)
            except MilvusException:
                # Another replica was first; its generation is the one.
                with suppress(MilvusException):
                    client.drop_collection(collection)

        await self._connection.write("create_generation", work)

    async def _load(self, generation: Generation) -> None:
        """Loads it, which goes on when the caller's time is up, so that the next caller finds it further on."""
        loading = self._loading.get(generation)
        if loading is None or loading.done():
            work = self._connection.write(
                "load_collection", lambda client: client.load_collection(generation.collection)
            )
            loading = self._loading[generation] = asyncio.ensure_future(work)
        await _wait(
            loading,
            self._settings.search_timeout_s,
            f"generation {generation.name} is being loaded; retry shortly",
        )


def _point(client: MilvusClient, alias: str, collection: str) -> None:
    try:
        client.create_alias(collection, alias)
    except MilvusException:
        # It is there, and moves in one step.
        client.alter_alias(collection, alias)


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


def _parse(described: Mapping[str, Any], alias: str, index: str) -> Generation:
    collection = str(described["collection_name"])
    properties = described.get("properties") or {}
    model_version = properties.get(_VERSION_KEY)
    if model_version is None or not collection.startswith(f"{index}_"):
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
        name=collection.removeprefix(f"{index}_"),
        collection=collection,
        model_version=str(model_version),
        dimensions=int(fields["vector"]["params"]["dim"]),
        lexical="sparse" in fields,
        # Generations were all of HNSW before they told.
        index_type=schema.IndexType(properties.get(_INDEX_TYPE_KEY, schema.IndexType.HNSW)),
        ivf_nlist=int(properties.get(_IVF_NLIST_KEY, 0)),
    )
