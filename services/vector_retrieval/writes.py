"""Writes, and what keeps generations in step with each other.

    a shop's upsert   forgotten by the generation being built, written to the live one, copied to the previous one
                      where that has the item, with the vector it has there
    a delete          in all of them, and remembered (`tombstones`), so that an older upsert which comes later is none
    a load            to one generation, and only of items that are still what they were when they were listed

So what the generation being built lacks is what is still to be encoded: nothing else records it, and nothing that
could be lost. Each step leaves an item either right or lacking, whatever the process dies between.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
from pymilvus import MilvusClient

from services.vector_retrieval import expressions, schema
from services.vector_retrieval.capabilities import Capabilities
from services.vector_retrieval.generations import Generation, Generations
from services.vector_retrieval.lite import Gate
from services.vector_retrieval.milvus import WRITE_THREADS, Connection
from services.vector_retrieval.schema import Row
from services.vector_retrieval.settings import VectorRetrievalSettings
from services.vector_retrieval.tombstones import Tombstones
from shared.errors import DeadlineError, VersionMismatchError
from shared.rpc import deadline
from shared.telemetry import metrics

_LOCK_STRIPES = 256
_MOST_TOUCHED = 100_000
"""Ids remembered for a generation: some ten megabytes."""

_DAY_S = 86_400.0
_HOLD_POLL_S = 0.05
"""How late a write may learn that it need not wait any longer."""

Result = TypeVar("Result")

Same = Callable[[bytes, bytes], bool]
"""Whether two payloads are the same item."""


class Writer:
    """Writes of this process to one store."""

    def __init__(
        self, connection: Connection, gate: Gate, generations: Generations, settings: VectorRetrievalSettings
    ) -> None:
        self._connection = connection
        self._gate = gate
        self._generations = generations
        self._settings = settings
        self._stripes = [asyncio.Lock() for _ in range(_LOCK_STRIPES)]
        self._switch = Gate()
        self._tombstones = Tombstones(settings.index, settings.deletes_kept_days * _DAY_S)
        self._aside = ThreadPoolExecutor(WRITE_THREADS, thread_name_prefix="milvus-tombstones")
        self._running: set[asyncio.Task[Any]] = set()
        self._touched: dict[str, set[str]] = {}
        self.wrote_at = -float("inf")

    async def upsert(self, rows: Mapping[str, Row], live: Generation, can: Capabilities) -> int:
        """Writes `rows` to `live` where they are not older than what is there, or was deleted; returns how many that
        was.

        Raises `VersionMismatchError` when another generation has become the live one.
        """

        def work(client: MilvusClient) -> int:
            roles = self._generations.roles
            if roles.live is not None and roles.live != live:
                raise VersionMismatchError(live.model_version, roles.live.model_version)
            # At the same time, for each waits for the store's next tick.
            asked = self._aside.submit(self._tombstones.times, client, list(rows))
            newer = _newer(client, live, rows)
            deleted = asked.result()
            newer = [row for row in newer if written(row) >= deleted.get(row.item.id, written(row))]
            if not newer:
                return 0
            ids = [row.item.id for row in newer]
            if roles.building is not None:
                # First, so that dying before the next step leaves it without the item, and not with an old one.
                _delete(client, roles.building, ids)
            client.upsert(live.collection, [schema.to_store(row, can) for row in newer], retry_times=0)
            if roles.previous is not None:
                known = _read_columns(client, roles.previous, ids, "vector")
                vectors = {i: np.array(vector, dtype=np.float32) for i, vector in known.items()}
                copies = [replace(row, vector=vectors[row.item.id]) for row in newer if row.item.id in vectors]
                if copies:
                    client.upsert(
                        roles.previous.collection, [schema.to_store(row, can) for row in copies], retry_times=0
                    )
            _tell_lag(newer)
            return len(newer)

        return await self._write("upsert", rows, work)

    async def load(
        self, rows: Mapping[str, Row], target: Generation, source: Generation | None, can: Capabilities, same: Same
    ) -> int:
        """Writes those of `rows` that `source` still has as they are, and returns how many were not written."""

        def work(client: MilvusClient) -> int:
            current = dict(rows)
            if source is not None:
                held = _read_columns(client, source, rows, "payload")
                current = {
                    i: row for i, row in rows.items() if i in held and same(schema.payload_of(held[i]), row.payload)
                }
            newer = _newer(client, target, current) if current else []
            if newer:
                client.upsert(target.collection, [schema.to_store(row, can) for row in newer], retry_times=0)
            gone = self._finish_deletes(client, newer, [target, source] if source else [target])
            return len(rows) - len(current) + gone

        return await self._write("load", rows, work)

    def _finish_deletes(self, client: MilvusClient, rows: Sequence[Row], generations: Sequence[Generation]) -> int:
        """Deletes what of `rows` has been deleted since it was written: by another replica after it was found to be
        there, or by one that died before it was done. Returns how many those are."""
        if not rows or not self._settings.is_server:
            return 0
        deleted = self._tombstones.times(client, [row.item.id for row in rows])
        gone = {row.item.id: at for row in rows if written(row) < (at := deleted.get(row.item.id, 0))}
        for generation in generations if gone else ():
            there = _read_columns(client, generation, gone, "updated_at")
            if old := [i for i, at in there.items() if at < gone[i]]:
                _delete(client, generation, old)
        return len(gone)

    async def delete(self, ids: Sequence[str], live: Generation) -> int:
        """Removes the items from every generation, and returns how many were in `live`."""

        def work(client: MilvusClient) -> int:
            # First: what is left undone when the process dies here is done when the caller tries again.
            self._tombstones.mark(client, ids)
            for other in self._generations.roles.all():
                if other != live:
                    _delete(client, other, ids)
            stored = _read_columns(client, live, ids, "updated_at")
            if stored:
                _delete(client, live, stored)
            return len(stored)

        return await self._write("delete", ids, work)

    async def flush_deletes(self) -> None:
        """Does for what is remembered of deletes what `Store.flush` does for items."""

        def work(client: MilvusClient) -> None:
            if self._tombstones.there(client):
                client.flush(self._tombstones.collection, retry_times=0)

        async with self._gate.writing():
            await self._connection.write("flush_deletes", work)

    async def remove(self, ids: Sequence[str], generation: Generation) -> None:
        """Removes the items from `generation` alone."""
        await self._write("delete", ids, lambda client: _delete(client, generation, ids))

    # --- what a change of the live generation needs ---

    async def unheld(self) -> None:
        """Waits for the end of a hold, whichever replica asked for it. Raises `DeadlineError` at that of the call's
        own time."""
        while (left := self._generations.held_for()) > 0:
            await asyncio.sleep(deadline.timeout_s(min(left, _HOLD_POLL_S)))
            if self._settings.is_server:
                await self._generations.refresh()

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Until the block ends no write runs; those that have begun are waited for."""
        async with self._switch.writing():
            yield

    def watch(self, generation: Generation) -> None:
        """From now on, remembers the ids written or loaded, for `touched`."""
        self._touched[generation.name] = set()

    def touched(self, generation: Generation) -> set[str] | None:
        """The ids since `watch`; `None` where it was never called, or there are too many to remember."""
        return self._touched.get(generation.name)

    def touch(self, generation: Generation, ids: Iterable[str]) -> None:
        """Adds `ids` to those touched."""
        if (known := self._touched.get(generation.name)) is not None:
            known.update(ids)

    def unwatch(self, generation: Generation) -> None:
        """Forgets the ids."""
        self._touched.pop(generation.name, None)

    async def to_the_end(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` returns; it goes on when the caller has left."""
        return await asyncio.shield(self._start(work))

    # --- how a write is run ---

    async def _write(self, operation: str, ids: Iterable[str], work: Callable[[MilvusClient], Result]) -> Result:
        """Runs `work` while nobody else writes these ids. Goes on when the caller's time is up: see `Gate`."""
        timeout_s = deadline.timeout_s(self._settings.write_timeout_s)

        async def run() -> Result:
            async with self._switch.reading(), self._locked(ids), self._gate.writing():
                self._remember(ids)
                try:
                    return await self._connection.write(operation, work)
                finally:
                    # Once more: a look that began meanwhile may have missed what has landed only now.
                    self._remember(ids)
                    self.wrote_at = time.monotonic()

        try:
            return await asyncio.wait_for(asyncio.shield(self._start(run())), timeout_s)
        except TimeoutError:
            raise DeadlineError("the store did not confirm the write in time; it may yet be done") from None

    def _remember(self, ids: Iterable[str]) -> None:
        for name, touched in list(self._touched.items()):
            touched.update(ids)
            if len(touched) > _MOST_TOUCHED:
                del self._touched[name]

    async def close(self) -> None:
        """Waits for writes that have begun."""
        if self._running:
            await asyncio.wait(self._running)
        self._aside.shutdown(wait=False)

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


def written(row: Row) -> int:
    """When the row's item last changed, as the store's column has it."""
    return schema.micros(schema.updated_at(row.item))


def _newer(client: MilvusClient, generation: Generation, rows: Mapping[str, Row]) -> list[Row]:
    stored = _read_columns(client, generation, rows, "updated_at")
    return [row for row in rows.values() if written(row) >= stored.get(row.item.id, written(row))]


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


def _delete(client: MilvusClient, generation: Generation, ids: Iterable[str]) -> None:
    # Not by `ids=`, from which pymilvus makes an expression without escaping what is in them.
    client.delete(generation.collection, filter=expressions.ids_in(ids), retry_times=0)


def _tell_lag(rows: Sequence[Row]) -> None:
    now = datetime.now(UTC)
    for row in rows:
        lag = (now - schema.updated_at(row.item)).total_seconds()
        # The shop's clock may be ahead of this one.
        metrics.WRITE_LAG_SECONDS.observe(max(lag, 0.0))
