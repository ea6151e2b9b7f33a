"""Bulk ingest: the whole road, as `make ingest` takes it, against its encoder alone; and what it keeps in memory.

The road: a process that reads the file and sends it, gateway, item encoder, vector retrieval and its store, all on
the cores of this machine. The encoder alone: the same batches, already read, straight to the same service.
"""

import asyncio
import itertools
import re
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
from aisle.common.v1 import priority_pb2
from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc

from deploy.local import state
from deploy.local.ingest import BATCH_ITEMS
from deploy.local.mesh import Mesh
from deploy.local.spec import DEFAULT_BUNDLE, MeshSpec
from shared.catalogue import write_jsonl
from shared.items import Item
from shared.rpc.items import item_to_proto
from tests.benchmarks import texts
from tests.benchmarks.bench import Bench, Measured, Row, rate
from tests.benchmarks.figures import OUT, ROOT, Goal
from tests.benchmarks.processes import finished
from tests.benchmarks.turns import in_turns, ratio
from tests.benchmarks.usage import Usage, of_group, usage
from tests.integration.vector_retrieval import servers
from tests.support.shallow_bundle import make_shallow_bundle

ROAD_ITEMS = 24 * BATCH_ITEMS
"""A turn: a dozen seconds on two cores, so that filling and emptying the road weighs little, as in a real import."""
CALLS = 4
"""To the encoder at once: it always has a batch waiting."""
SIZES = (20_000, 200_000)
QUICK_SIZES = (2_000, 20_000)
IMPORTER = "importer"
ROAD = ("gateway", "item_encoder", "vector_retrieval")
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Load:
    """One run of `make ingest` to its end."""

    items: int
    items_per_s: float
    """From the first item on: the start of the process is not counted."""
    peak_mib: dict[str, float]
    """Peak resident memory since its start, by process."""
    cpu_ms: dict[str, float]
    """Processor time an item, by process."""


async def road(bench: Bench) -> list[Measured]:
    """The road against the encoder alone, in turns over the same items, which the index has not seen."""
    items = texts.items(ROAD_ITEMS * (bench.rounds + 1))
    slices, again = itertools.tee(items[at : at + ROAD_ITEMS] for at in range(0, len(items), ROAD_ITEMS))
    used: list[dict[str, float]] = []
    used_alone: list[float] = []
    async with _mesh(DEFAULT_BUNDLE) as shop, AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(shop.mesh.address("item_encoder")))
        encode = item_encoder_pb2_grpc.ItemEncoderStub(channel).EncodeItems

        async def whole() -> float:
            loaded = await load(shop, _written(shop.mesh.spec.folder / "turn.jsonl", next(slices)))
            used.append(loaded.cpu_ms)
            return loaded.items_per_s

        async def alone() -> float:
            before = shop.used()["item_encoder"].cpu_s
            items_per_s = await _encoded(encode, next(again))
            used_alone.append((shop.used()["item_encoder"].cpu_s - before) / ROAD_ITEMS * 1000)
            return items_per_s

        ours, theirs = await in_turns(whole, alone, bench.rounds, "ingest / encoder alone")
    cpu_ms = {name: round(statistics.median(one[name] for one in used[1:]), 3) for name in used[0]}
    cpu_ms["item_encoder, alone"] = round(statistics.median(used_alone[1:]), 3)
    raw = {"road_items_per_s": ours, "encoder_items_per_s": theirs, "cpu_ms_an_item": cpu_ms, "store": shop.home}
    note = f"turns of {ROAD_ITEMS:,} items, new to the index ({shop.home}); everything on the same cores"
    profile = "processor time an item, ms: " + ", ".join(f"{name} {spent:g}" for name, spent in cpu_ms.items())
    return [Measured(ratio(ours, theirs), raw, note, profile)]


async def memory(bench: Bench) -> list[Measured]:
    """Peaks of the processes that an import goes through, after a small file and after a large one, each from a start
    of its own. Measured with the model's first layer alone, whose encoding is not what is asked here."""
    if not (bench.full or bench.quick):
        raise LookupError("importing 200,000 rows takes a quarter of an hour: make bench PART=retrieval FULL=1")
    bundle = (await asyncio.to_thread(make_shallow_bundle, OUT / "shallow")).path
    small, large = [await _at_size(bundle, size) for size in (QUICK_SIZES if bench.quick else SIZES)]
    raw = {
        f"{one.items} rows": {"peak_mib": one.peak_mib, "items_per_s": round(one.items_per_s, 1)}
        for one in (small, large)
    }

    def told(name: str) -> str:
        return f"{name} {small.peak_mib[name]:,.0f} → {large.peak_mib[name]:,.0f} MiB"

    # Reported and not judged: what is stored has to be somewhere, and with the embedded store it is in this process.
    stores = ", ".join(told(name) for name in ("vector_retrieval", "milvus") if name in large.peak_mib)
    at = f"{small.items:,} → {large.items:,} rows"
    return [
        Measured(large.peak_mib[name] / small.peak_mib[name], raw, f"{told(name)} at {at}; the store: {stores}")
        for name in (IMPORTER, "gateway", "item_encoder")
    ]


async def load(shop: "Shop", catalogue: Path) -> Load:
    """Loads a catalogue as `make ingest` does. Raises `RuntimeError` where it does not come to its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.local", "--folder", str(shop.mesh.spec.folder)),
        *("ingest", "--catalog", str(catalogue), "--restart"),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    before, importer = shop.used(), Usage()
    telling = asyncio.create_task(process.communicate())
    try:
        while not telling.done():
            # Once it has ended nobody knows any more.
            now = usage(process.pid)
            importer = now if now.peak_mib else importer
            await asyncio.wait([telling], timeout=_POLL_S)
    finally:
        if process.returncode is None:
            process.terminate()
    said = (await telling)[0].decode()
    found = re.search(r"([\d,]+) rows are in the index \((?P<seconds>[\d.]+) s", said)
    if process.returncode or found is None:
        raise RuntimeError(f"the import failed: {said.strip().splitlines()[-1]}")
    items = int(found[1].replace(",", ""))
    after = {**shop.used(), IMPORTER: importer}
    return Load(
        items,
        items / float(found["seconds"]),
        {name: used.peak_mib for name, used in after.items()},
        {name: (used.cpu_s - before.get(name, Usage()).cpu_s) / items * 1000 for name, used in after.items()},
    )


async def _at_size(bundle: Path, rows: int) -> Load:
    catalogue = OUT / "catalogues" / f"generated-{rows}.jsonl"
    if not catalogue.is_file():
        catalogue.parent.mkdir(parents=True, exist_ok=True)
        draft = catalogue.with_name(f"draft-{catalogue.name}")
        command = [sys.executable, "-m", "shared.catalogue", "generate", "--items", str(rows), "--out", str(draft)]
        await finished("generate", command)
        draft.replace(catalogue)
    async with _mesh(bundle) as shop:
        return await load(shop, catalogue)


def _written(path: Path, items: Iterable[Item]) -> Path:
    write_jsonl(items, path)
    return path


async def _encoded(encode: Any, items: Sequence[Item]) -> float:
    """Items a second. Raises `RuntimeError` where one could not be encoded."""
    requests = [
        item_encoder_pb2.EncodeItemsRequest(
            items=[item_to_proto(item) for item in items[at : at + BATCH_ITEMS]], priority=priority_pb2.PRIORITY_BULK
        )
        for at in range(0, len(items), BATCH_ITEMS)
    ]
    calls = asyncio.Semaphore(CALLS)

    async def one(request: Any) -> None:
        async with calls:
            if (await encode(request, timeout=120)).errors:
                raise RuntimeError("the encoder refused items that the road takes")

    return await rate(len(items), asyncio.gather(*map(one, requests)))


@dataclass(frozen=True, slots=True)
class Shop:
    """A mesh that runs, over a store that is in words `home`; `server` leads the processes of one that has its own."""

    mesh: Mesh
    home: str
    server: int | None = None

    def used(self) -> dict[str, Usage]:
        """By process, since their start."""
        known = state.load(self.mesh.spec.folder)
        if known is None:
            raise RuntimeError("the mesh has ended")
        found = {service.name: usage(service.process.pid) for service in known.services if service.name in ROAD}
        return found if self.server is None else {**found, "milvus": of_group(self.server)}


@asynccontextmanager
async def _mesh(bundle: Path) -> AsyncIterator[Shop]:
    """A mesh of its own, over a Milvus server where one is installed, and the embedded store where not."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aisle-ingest-")))
        spec = MeshSpec.on_free_ports(index=folder / "index" / "milvus.db", folder=folder, bundle=bundle)
        home, leader = "Milvus Lite", None
        if servers.installed():
            server = servers.MilvusServer(folder / "milvus", quick=False)
            stack.callback(server.end)
            await asyncio.to_thread(server.start)
            spec = replace(spec, environ={**spec.environ, "AISLE_VECTOR_RETRIEVAL_URI": server.uri})
            home, leader = "Milvus server", server.leader
        mesh = Mesh(spec)
        stack.callback(mesh.stop)
        await asyncio.to_thread(mesh.start)
        yield Shop(mesh, home, leader)


def _memory_goal(what: str) -> Goal:
    return Goal(f"peak memory of {what}, import of 200k rows ÷ 20k", 1.3, "lower")


ROWS: dict[str, Row] = {
    "ingest": Row((Goal("ingest, the whole road ÷ its encoder alone, items/s", 0.85),), road),
    "ingest-memory": Row(
        (_memory_goal("the importer"), _memory_goal("the gateway"), _memory_goal("the item encoder")), memory
    ),
}
