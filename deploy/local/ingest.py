"""A catalogue file → the gateway, through `Catalog.ImportItems`, in bounded memory.

The file is read a batch at a time. Two batches are on their way at once: while the mesh works on one, the next is read;
a gateway that falls behind makes the reader wait.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from aisle.catalog.v1 import item_pb2
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc

from deploy.local import interrupt
from deploy.local.errors import LocalError
from shared.catalogue import CatalogueError, CatalogueReader, RowError, read_catalogue
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


@dataclass(slots=True)
class Batch:
    """Items that travel together, and how far through the file they reach (0 to 1)."""

    items: dict[str, item_pb2.Item] = field(default_factory=dict)
    size: int = 0
    fraction: float = 0.0


@dataclass(slots=True)
class Progress:
    """How far an import is."""

    accepted: int = 0
    """Rows that are in the index."""
    rejected: int = 0
    """Rows refused, by the reader or by the mesh."""
    fraction: float = 0.0
    started: float = field(default_factory=time.monotonic)
    reasons: list[str] = field(default_factory=list)
    """Refusals since these were last taken, for people."""

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    @property
    def items_per_s(self) -> float:
        """Accepted so far, by the time so far."""
        return self.accepted / max(self.seconds, 1e-9)

    def reject(self, reason: str) -> None:
        """Notes one refusal."""
        self.rejected += 1
        self.reasons.append(reason)


Observe = Callable[[Progress], None]


def ingest(path: Path, mapping: str, target: str, observe: Observe, each: Callable[[Item], None]) -> Progress:
    """Loads the catalogue at `path` into the mesh whose gateway is `target`; `each` sees every item.

    Raises `LocalError`, saying how far it came, when the file cannot be used or the mesh gives up.
    """
    try:
        with read_catalogue(path, mapping) as reader:
            return asyncio.run(_import(reader, target, observe, each))
    except CatalogueError as error:
        raise LocalError(str(error)) from None


async def _import(reader: CatalogueReader, target: str, observe: Observe, each: Callable[[Item], None]) -> Progress:
    progress = Progress()
    async with grpc.aio.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = catalog_pb2_grpc.CatalogStub(channel).ImportItems()
        try:
            async for batch, answer in _acknowledged(call, _batches(reader, progress, each)):
                progress.accepted = answer.accepted
                progress.fraction = batch.fraction
                for error in answer.errors:
                    progress.reject(f"item {error.item_id!r}: {error.field}: {error.message}")
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
    return progress


async def _acknowledged(call: Any, batches: Iterable[Batch]) -> AsyncIterator[tuple[Batch, Any]]:
    """Each batch with the answer that says it is durable. Raises `AioRpcError` when the stream ends early."""
    waiting: deque[Batch] = deque()
    try:
        for batch in batches:
            request = catalog_pb2.ImportItemsRequest(items=batch.items.values())
            await asyncio.wait_for(call.write(request), ACKNOWLEDGED_WITHIN_S)
            waiting.append(batch)
            if len(waiting) >= IN_FLIGHT:
                yield waiting.popleft(), await _answer(call)
        await call.done_writing()
        while waiting:
            yield waiting.popleft(), await _answer(call)
    except asyncio.InvalidStateError:
        # The stream is over, and only its status says why.
        await _raise_status(call)


async def _answer(call: Any) -> Any:
    answer = await asyncio.wait_for(call.read(), ACKNOWLEDGED_WITHIN_S)
    if answer is grpc.aio.EOF:
        await _raise_status(call)
    return answer


async def _raise_status(call: Any) -> None:
    raise grpc.aio.AioRpcError(
        await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
    )


def _batches(reader: CatalogueReader, progress: Progress, each: Callable[[Item], None]) -> Iterator[Batch]:
    batch = Batch()
    for row in reader:
        if isinstance(row, RowError):
            progress.reject(str(row))
            continue
        each(row)
        pb = item_to_proto(row)
        size = pb.ByteSize()
        if batch.items and (len(batch.items) >= BATCH_ITEMS or batch.size + size > BATCH_BYTES):
            batch.fraction = reader.fraction_read
            yield batch
            batch = Batch()
        # Of two rows with one id the later stands, in its own place.
        batch.items.pop(row.id, None)
        batch.items[row.id] = pb
        batch.size += size
    if batch.items:
        batch.fraction = 1.0
        yield batch


def _stopped(progress: Progress, why: str) -> str:
    return (
        f"the import stopped after {progress.accepted:,} items: {why}. "
        "Run it again when the cause is gone: items that are in already are only replaced"
    )
