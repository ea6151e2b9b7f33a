"""A catalogue file → the gateway, through `Catalog.ImportItems`, in bounded memory.

The file is read a batch at a time. Two batches are on their way at once: while the mesh works on one, the next is read;
a gateway that falls behind makes the reader wait.

What counts as done is what the mesh acknowledged, in rows of the file: those of a batch, and those before it that the
reader refused.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
from aisle.catalog.v1 import item_pb2
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc

from deploy.local import client, interrupt
from deploy.local.checkpoint import Checkpoint, Done
from deploy.local.errors import LocalError
from shared.catalogue import CatalogueError, CatalogueReader, Rejections, RowError, read_catalogue
from shared.items import Item
from shared.rpc.items import item_to_proto
from shared.rpc.status import from_rpc_error

BATCH_ITEMS = 128
"""Half a second of encoding on two cores: the progress bar moves, and the cost of a call is lost in it."""
BATCH_BYTES = 1 << 20
"""A quarter of what one message may hold."""
IN_FLIGHT = 2
ACKNOWLEDGED_WITHIN_S = 120.0
"""A batch that takes longer is stuck."""
_SKIPPED_AT_ONCE = 1_000
"""Rows passed over between two looks at the progress bar: a tenth of a second of reading."""


@dataclass(slots=True)
class Batch:
    """Items that travel together. `rows` of the file, from its start, and the `fraction` of it (0 to 1) are dealt with
    once it is acknowledged, `rejections` are of the rows that the reader refused on the way."""

    rows: int
    items: dict[str, item_pb2.Item] = field(default_factory=dict)
    size: int = 0
    fraction: float = 1.0
    rejections: Rejections = field(default_factory=Rejections)

    def has_room(self, size: int) -> bool:
        """Whether an item of `size` bytes may travel too."""
        return not self.items or (len(self.items) < BATCH_ITEMS and self.size + size <= BATCH_BYTES)

    def add(self, item: item_pb2.Item, size: int) -> None:
        """Of two rows with one id the later stands, in its own place."""
        self.items.pop(item.id, None)
        self.items[item.id] = item
        self.size += size
        self.rows += 1

    def reject(self, error: RowError) -> None:
        """Notes a row that is no item."""
        self.rejections.add(error.why, error.where)
        self.rows += 1


@dataclass(slots=True)
class Progress:
    """How far an import is."""

    done: Done = field(default_factory=Done)
    """All runs together."""
    fraction: float = 0.0
    """Of the file."""
    passing: bool = False
    """Whether rows that an earlier run has done are being passed over."""
    before: int = 0
    """Items that earlier runs brought in."""
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since this run's first item."""
        return time.monotonic() - self.started

    @property
    def items_per_s(self) -> float:
        """Accepted in this run so far, by the time so far."""
        return (self.done.accepted - self.before) / max(self.seconds, 1e-9)

    def acknowledge(self, batch: Batch, answer: catalog_pb2.ImportItemsResponse | None) -> None:
        """Counts what became of `batch`; `None` where it held no item to send."""
        self.fraction = batch.fraction
        self.done.rows = batch.rows
        self.done.rejections.update(batch.rejections)
        if answer is None:
            return
        self.done.accepted = self.before + answer.accepted
        refused = set()
        for error in answer.errors:
            refused.add(error.item_id)
            self.done.rejections.add(f"{error.field}: {error.message}", f"item {error.item_id!r}")
        self.done.last_id = next((i for i in reversed(batch.items) if i not in refused), self.done.last_id)


Observe = Callable[[Progress], None]


def ingest(
    path: Path,
    mapping: str,
    target: str,
    observe: Observe,
    each: Callable[[Item], None],
    checkpoint: Checkpoint | None = None,
    done: Done | None = None,
) -> Progress:
    """Loads the catalogue at `path` into the mesh whose gateway is `target`; `each` sees every item of the file.

    Rows that are `done` are read and not sent. `checkpoint` is kept while it runs and removed at the end.
    Raises `LocalError`, saying how far it came, when the file cannot be used or the mesh gives up.
    """
    progress = Progress() if done is None else Progress(done, before=done.accepted)
    try:
        with read_catalogue(path, mapping) as reader:
            _pass_over(reader, progress, observe, each)
            asyncio.run(_import(_batches(reader, progress.done.rows, each), target, progress, observe, checkpoint))
    except CatalogueError as error:
        raise LocalError(str(error)) from None
    finally:
        # Whatever ended it, the next run need not do again what was acknowledged since the last time.
        if checkpoint is not None:
            checkpoint.save(progress.done)
    if checkpoint is not None:
        checkpoint.remove()
    return progress


def _pass_over(reader: CatalogueReader, progress: Progress, observe: Observe, each: Callable[[Item], None]) -> None:
    """Reads the rows that are done."""
    progress.passing = progress.done.rows > 0
    for number, row in enumerate(islice(reader, progress.done.rows)):
        if isinstance(row, Item):
            each(row)
        if number % _SKIPPED_AT_ONCE == 0:
            progress.fraction = reader.fraction_read
            observe(progress)
            interrupt.check()
    progress.passing = False
    progress.started = time.monotonic()


def _channel(target: str) -> grpc.aio.Channel:
    options = [("grpc.enable_http_proxy", 0)]
    shown = client.credentials()
    if shown is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, shown, options=options)


async def _import(
    batches: Iterable[Batch], target: str, progress: Progress, observe: Observe, checkpoint: Checkpoint | None
) -> None:
    async with _channel(target) as channel:
        call = catalog_pb2_grpc.CatalogStub(channel).ImportItems()
        try:
            async for batch, answer in _acknowledged(call, batches):
                progress.acknowledge(batch, answer)
                if checkpoint is not None:
                    checkpoint.note(progress.done)
                observe(progress)
                interrupt.check()
        except grpc.aio.AioRpcError as error:
            why = from_rpc_error(error, "the gateway").message
            raise LocalError(_stopped(progress, why)) from None
        except TimeoutError:
            why = f"the gateway acknowledged nothing for {ACKNOWLEDGED_WITHIN_S:.0f} s"
            raise LocalError(_stopped(progress, why)) from None
        finally:
            call.cancel()


async def _acknowledged(call: Any, batches: Iterable[Batch]) -> AsyncIterator[tuple[Batch, Any]]:
    """Each batch with the answer that says it is durable. Raises `AioRpcError` when the stream ends early."""
    waiting: deque[Batch] = deque()
    try:
        for batch in batches:
            if batch.items:
                request = catalog_pb2.ImportItemsRequest(items=batch.items.values())
                await asyncio.wait_for(call.write(request), ACKNOWLEDGED_WITHIN_S)
            waiting.append(batch)
            if len(waiting) >= IN_FLIGHT:
                yield waiting[0], await _answer(call, waiting.popleft())
        await call.done_writing()
        while waiting:
            yield waiting[0], await _answer(call, waiting.popleft())
    except asyncio.InvalidStateError:
        # The stream is over, and only its status says why.
        await _raise_status(call)


async def _answer(call: Any, batch: Batch) -> Any:
    if not batch.items:
        return None
    answer = await asyncio.wait_for(call.read(), ACKNOWLEDGED_WITHIN_S)
    if answer is grpc.aio.EOF:
        await _raise_status(call)
    return answer


async def _raise_status(call: Any) -> None:
    raise grpc.aio.AioRpcError(
        await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
    )


def _batches(reader: CatalogueReader, done: int, each: Callable[[Item], None]) -> Iterator[Batch]:
    """What the file still holds after `done` rows; the last batch may hold no items."""
    batch = Batch(done)
    for row in reader:
        if isinstance(row, RowError):
            batch.reject(row)
            continue
        each(row)
        pb = item_to_proto(row)
        size = pb.ByteSize()
        if not batch.has_room(size):
            batch.fraction = reader.fraction_read
            yield batch
            batch = Batch(batch.rows)
        batch.add(pb, size)
    yield batch


def _stopped(progress: Progress, why: str) -> str:
    return (
        f"the import stopped after {progress.done.accepted:,} items, at row {progress.done.rows:,}: {why}. "
        "Run it again when the cause is gone: it goes on from there"
    )
