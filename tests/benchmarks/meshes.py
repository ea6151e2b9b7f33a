"""What the rows of part "mesh" share: a shop on a Milvus server, meshes over it, and the pipeline beside them."""

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.local.mesh import Mesh
from deploy.local.spec import KINDS, MeshSpec
from tests.benchmarks import corpora, usage, vectors
from tests.benchmarks.bench import Bench
from tests.benchmarks.gateway_load import Loads
from tests.benchmarks.indexes import indexed, milvus_server
from tests.benchmarks.processes import StartError

if TYPE_CHECKING:
    from tests.integration.vector_retrieval.servers import MilvusServer

ITEMS = 4_000
CALLERS = 32
_NAME = "shop"
_WARM_S = 15.0
"""The re-ranker has then read most of the items."""

Env = Mapping[str, Mapping[str, str]]
"""Settings by service."""


class Running:
    """A mesh that serves, and loads on it."""

    def __init__(self, mesh: Mesh, seconds: float) -> None:
        self.mesh = mesh
        self.loads = Loads(mesh.spec.target("gateway"), seconds, mesh.spec.operator)

    async def peak(self) -> float:
        """Searches/s of `CALLERS` callers: as many as it can answer."""
        return float((await self.loads.of(callers=CALLERS))["requests_per_s"])

    def cpu_s(self) -> dict[str, float]:
        """Seconds of CPU that each service has used."""
        return {one.name: usage.usage(pid).cpu_s for one in KINDS if (pid := self.mesh.pid(one.name)) is not None}


class Meshes(Bench):
    """Everything lives as long as `stack`."""

    def __init__(self, quick: bool, stack: contextlib.AsyncExitStack) -> None:
        super().__init__(quick)
        self._stack = stack
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aisle-bench-")))
        self._milvus: MilvusServer | None = None
        self._collection = ""
        self._running: dict[str, Running] = {}
        self._peak = 0.0
        self.corpus = corpora.priced_titles(ITEMS)
        self.shop = self.corpus.items[:ITEMS]

    async def store(self) -> tuple[str, str]:
        """Address of a Milvus server, and the collection with the shop's items."""
        if self._milvus is None:
            self._milvus = await self._stack.enter_async_context(milvus_server())
            rows = await vectors.of_items(self, self.shop)
            async with indexed(_NAME, self._milvus.uri, self.shop, rows, self.bundle.version) as index:
                self._collection = index.collection
        return self._milvus.uri, self._collection

    async def cpu_s(self) -> dict[str, float]:
        """Seconds of CPU that each part of the plain mesh, and Milvus, have used."""
        spent = (await self.mesh()).cpu_s()
        leader = self._milvus.leader if self._milvus is not None else None
        return {**spent, "Milvus": usage.of_group(leader).cpu_s if leader is not None else 0.0}

    async def mesh(self, name: str = "plain", env: Env | None = None, between: str = "none") -> Running:
        """The mesh called `name`, which has warm caches; started with `env`, and `between` its services what
        `deploy.local.spec.MESHES` calls so, when first asked for."""
        if name not in self._running:
            uri, _ = await self.store()
            told = {service: dict(settings) for service, settings in (env or {}).items()}
            told.setdefault("vector_retrieval", {}).update(
                AISLE_VECTOR_RETRIEVAL_URI=uri, AISLE_VECTOR_RETRIEVAL_INDEX=_NAME
            )
            # Queries differ from one another here; a cache of them would only answer those of the rounds before.
            told.setdefault("query_encoder", {}).update(AISLE_QUERY_ENCODER_CACHE_BYTES="0")
            mesh = await self._stack.enter_async_context(_started(self._folder / name, told, between))
            self._running[name] = Running(mesh, self.seconds)
            # Few and patient at first: what an empty cache costs is not what is measured.
            await self._running[name].loads.of(callers=4, seconds=_WARM_S, patience=30)
        return self._running[name]

    async def peak(self) -> float:
        """The plain mesh's, measured once: what loads are set by."""
        if not self._peak:
            self._peak = await (await self.mesh()).peak()
        return self._peak

    @asynccontextmanager
    async def pipeline(self, model: str, *, keep: bool) -> AsyncIterator["Piped"]:
        """The pipeline over the same collection, in a process of its own."""
        command = [sys.executable, "-m", "tests.benchmarks.pipeline", model, *await self.store()]
        process = await asyncio.create_subprocess_exec(
            *(*command, *(["--keep"] if keep else [])),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=2**20,
            start_new_session=True,
        )
        try:
            yield Piped(process, self.seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class Piped:
    """A pipeline that runs."""

    def __init__(self, process: asyncio.subprocess.Process, seconds: float) -> None:
        self._process = process
        self._seconds = seconds
        self._offset = 0

    async def peak(self) -> float:
        """Searches/s of `CALLERS` threads."""
        self._offset = (self._offset + 977) % 15_000
        asked = {"callers": CALLERS, "seconds": self._seconds, "offset": self._offset}
        return float((await self._ask(asked))["requests_per_s"])

    async def found(self, queries: list[str]) -> list[list[str]]:
        """Ids of the first page of each."""
        found: list[list[str]] = (await self._ask({"queries": queries}))["found"]
        return found

    async def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise StartError("the pipeline ended; run it by hand to see why")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def _started(folder: Path, env: Env, between: str) -> AsyncIterator[Mesh]:
    """A mesh of real processes on free ports."""
    spec = MeshSpec.on_free_ports(index=folder / "unused", folder=folder, env=env, mesh=between)
    mesh = Mesh(spec, shared=False)
    starting = asyncio.ensure_future(asyncio.to_thread(mesh.start))
    try:
        await asyncio.shield(starting)
        yield mesh
    finally:
        # Cut off while starting, it is stopped once it has started.
        await asyncio.wait({starting})
        await asyncio.to_thread(mesh.stop)
