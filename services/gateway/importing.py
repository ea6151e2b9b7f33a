"""Imports: a stream of batches in, acknowledgements out, in order, each only when its rows are durable.

    stream ──→ feed: check, cut into chunks ──→ encode (up to `window` chunks at once) ──→ store, one by one ──→ ack

The chunks between the stream and the store are at most `window`, whatever the stream's length; reading stops while
they are all taken, and gRPC's flow control carries that to the importer. A busy or restarting dependency is waited
for: an import of an hour survives its services being replaced.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from services.gateway import validation
from services.gateway.budgets import RemainingS, StageBudget
from services.gateway.catalog import CatalogWriter, Draft, Encoded, ItemRow, draft
from services.gateway.ports import Priority, RowError
from services.gateway.retry import Patience


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPolicy:
    """How imports are run. A chunk has at most `chunk_items` items and, unless it is one item, `chunk_bytes` bytes."""

    chunk_items: int
    chunk_bytes: int
    window: int
    encode: StageBudget
    write: StageBudget
    patience: Patience


class Progress(NamedTuple):
    """The state of an import after one batch: counts from the start of the stream, refusals of the batch alone.

    `rows` were read and dealt with: an importer that is cut off goes on from there.
    """

    rows: int
    accepted: int
    rejected: int
    errors: Sequence[RowError]


class _BatchEnd(NamedTuple):
    """Follows the chunks of a batch of `rows` rows, of which `errors` broke a rule."""

    rows: int
    errors: list[RowError]


class _StreamEnd(NamedTuple):
    """There are no more batches, or `error` is why reading them ended."""

    error: Exception | None


_Chunk = asyncio.Task[Encoded]
_Event = _Chunk | _BatchEnd | _StreamEnd


class Importer:
    """Runs imports; one object serves any number of streams at once."""

    def __init__(self, writer: CatalogWriter, policy: ImportPolicy, *, remaining_s: RemainingS) -> None:
        self._writer = writer
        self._policy = policy
        self._remaining_s = remaining_s

    async def run(self, batches: AsyncIterator[Sequence[ItemRow]]) -> AsyncGenerator[Progress, None]:
        """One `Progress` a batch. Rows that break a rule or cannot be encoded or stored fail alone.

        Raises, after the acknowledgements of what came before: `InvalidArgumentError` for a batch that has not 1 to
        1,000 items, `UnavailableError` or `OverloadedError` when a dependency stays away for longer than the policy's
        patience, `VersionMismatchError`, and what reading the stream raises.
        """
        pipe = _Pipe(self._policy.window)
        feeding = asyncio.create_task(self._feed(batches, pipe))
        rows = rejected = 0
        refused: list[RowError] = []
        try:
            while True:
                match await pipe.get():
                    case _StreamEnd(error):
                        if error is not None:
                            raise error
                        return
                    case _BatchEnd(count, broken):
                        errors = sorted(refused + broken)
                        refused = []
                        rows += count
                        rejected += len(errors)
                        yield Progress(rows, rows - rejected, rejected, errors)
                    case chunk:
                        refused += await self._store(await chunk)
                        pipe.done(chunk)
        finally:
            await pipe.stop(feeding)

    async def _feed(self, batches: AsyncIterator[Sequence[ItemRow]], pipe: "_Pipe") -> None:
        """Reads and encodes ahead of the store, as far as the window allows."""
        first = 0
        try:
            async for rows in batches:
                validation.refuse(validation.count_problems(len(rows), validation.MAX_IMPORT_ITEMS, "items"))
                drafts, errors = draft(rows, first)
                for chunk in chunks(drafts, self._policy.chunk_items, self._policy.chunk_bytes):
                    await pipe.start(self._encode, chunk)
                await pipe.put(_BatchEnd(len(rows), errors))
                first += len(rows)
        except Exception as error:
            # Told in its turn, so that the rows before it are acknowledged first.
            await pipe.put(_StreamEnd(error))
        else:
            await pipe.put(_StreamEnd(None))

    async def _encode(self, drafts: Sequence[Draft]) -> Encoded:
        async def once() -> Encoded:
            timeout = self._policy.encode.timeout_s(self._remaining_s())
            return await self._writer.encode(drafts, Priority.BULK, timeout_s=timeout)

        return await self._policy.patience.run(once, self._remaining_s)

    async def _store(self, encoded: Encoded) -> list[RowError]:
        async def once() -> list[RowError]:
            timeout = self._policy.write.timeout_s(self._remaining_s())
            return await self._writer.store(encoded, timeout_s=timeout)

        return await self._policy.patience.run(once, self._remaining_s)


class _Pipe:
    """What lies between the stream and the store: events in order, at most `window` of them chunks."""

    def __init__(self, window: int) -> None:
        self._events: asyncio.Queue[_Event] = asyncio.Queue(window)
        self._slots = asyncio.Semaphore(window)
        self._running: set[_Chunk] = set()

    async def start(
        self, encode: Callable[[Sequence[Draft]], Coroutine[Any, Any, Encoded]], chunk: list[Draft]
    ) -> None:
        """Begins to encode `chunk` once the window has room for it."""
        await self._slots.acquire()
        task = asyncio.create_task(encode(chunk))
        self._running.add(task)
        await self._events.put(task)

    async def put(self, event: _Event) -> None:
        """Adds `event` after what came before."""
        await self._events.put(event)

    async def get(self) -> _Event:
        """The next event."""
        return await self._events.get()

    def done(self, chunk: _Chunk) -> None:
        """Makes room: `chunk` is stored."""
        self._running.discard(chunk)
        self._slots.release()

    async def stop(self, feeding: asyncio.Task[None]) -> None:
        """Ends what still runs, and waits for its end."""
        tasks = [feeding, *self._running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def chunks(drafts: Sequence[Draft], most_items: int, most_bytes: int) -> Iterator[list[Draft]]:
    """`drafts` in their order, cut into runs of at most `most_items` items and, beyond one item, `most_bytes` bytes."""
    chunk: list[Draft] = []
    size = 0
    for one in drafts:
        if chunk and (len(chunk) == most_items or size + one.row.size > most_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(one)
        size += one.row.size
    if chunk:
        yield chunk
