"""A shop changes its model while it is searched and written to, with the real services and two real models."""

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.common.v1 import embeddings_pb2, model_pb2
from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from aisle.retrieval.v1 import vector_retrieval_pb2_grpc

from shared.rpc import embeddings
from tests.integration.vector_retrieval.conftest import HOMES
from tests.integration.vector_retrieval.processes import ServiceProcess, running
from tests.integration.vector_retrieval.servers import ROOT, free_port
from tests.support.second_bundle import shorter

MODEL = ROOT / "build" / "models" / "minilm"
ITEMS = 240
KINDS = ["red shoe", "blue lamp", "garden hose", "drill", "tea", "phone case", "wool hat", "desk", "saw", "bike"]

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (MODEL / "bundle.json").exists(), reason="no model: run `make models`"),
]


@pytest.fixture(scope="module")
def second_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shorter(MODEL, tmp_path_factory.mktemp("models") / "short")


def python(module: str, **flags: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *(part for name, value in flags.items() for part in (f"--{name}", str(value)))],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'shared' / 'stubs'}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if module.endswith("reindex") else subprocess.DEVNULL,
    )


@contextlib.contextmanager
def encoding(bundle: Path) -> Iterator[str]:
    """The address of an item encoder that runs `bundle`."""
    port = free_port()
    process = python("services.item_encoder", bundle=bundle, port=port, **{"metrics-port": free_port()})
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(timeout=10)


@contextlib.asynccontextmanager
async def model(address: str) -> AsyncIterator["Model"]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = item_encoder_pb2_grpc.ItemEncoderStub(channel)
        answer = await stub.GetModel(model_pb2.GetModelRequest(), timeout=60, wait_for_ready=True)
        yield Model(stub, address, answer.model.version)


@dataclass
class Model:
    stub: item_encoder_pb2_grpc.ItemEncoderStub
    address: str
    version: str

    async def encode(self, items: Sequence[item_pb2.Item]) -> embeddings_pb2.Embeddings:
        answer = await self.stub.EncodeItems(item_encoder_pb2.EncodeItemsRequest(items=items), timeout=60)
        return answer.embeddings

    async def rows(self, items: Sequence[item_pb2.Item]) -> np.ndarray:
        return embeddings.unpack(await self.encode(items))


def item(number: int, edition: int = 0) -> item_pb2.Item:
    kind = KINDS[number % len(KINDS)]
    made = item_pb2.Item(id=f"item-{number:04}", title=f"{kind} number {number} for the home, edition {edition}")
    made.updated_at.GetCurrentTime()
    return made


@dataclass
class Load:
    """A steady load on the service, and what came of it."""

    stub: vector_retrieval_pb2_grpc.VectorRetrievalStub
    models: list[Model]
    asking: Model
    share: Sequence[int]
    """The items it changes."""
    stopped: bool = False
    searches: int = 0
    by_version: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    async def search(self) -> None:
        """Asks with the model in use for items that nobody rewrites, whose scores are therefore known."""
        asked = [item(n) for n in range(8)]
        rows = {m.version: await m.rows(asked) for m in self.models}
        while not self.stopped:
            version = self.asking.version
            query = rows[version]
            request = pb.SearchRequest(embeddings=embeddings.pack(query, version), limit=10)
            try:
                answer = await self.stub.Search(request, timeout=10)
            except grpc.aio.AioRpcError as error:
                self.failed.append(str(error.details()))
                continue
            self.searches += 1
            self.by_version[version] = self.by_version.get(version, 0) + 1
            if answer.model_version != version:
                self.wrong.append(answer.model_version)
            for at, candidates in enumerate(answer.candidates):
                scores = {hit.item.id: hit.dense_score for hit in candidates.hits}
                # An item's own vector was made from it by this model, or is not where it should be.
                if len(scores) != 10 or abs(scores.get(asked[at].id, 0.0) - 1) > 1e-2:
                    self.wrong.append(f"{version} after {self.searches}: {asked[at].id} has {scores.get(asked[at].id)}")

    async def write(self, old: Model) -> None:
        """Changes the items of its share with the old model's vectors until these are refused."""
        for edition in itertools.count(1):
            items = [item(self.share[(edition * 4 + n) % len(self.share)], edition) for n in range(4)]
            request = pb.UpsertItemsRequest(items=items, embeddings=await old.encode(items))
            try:
                await self.stub.UpsertItems(request, timeout=30)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                    # Another replica may have swapped in the middle of it: refused, and yet brought over by the sweep.
                    self.refused = {i.id: i.title for i in items}
                    return
                raise
            self.acknowledged.update({i.id: i.title for i in items})


async def lived_in(stub: vector_retrieval_pb2_grpc.VectorRetrievalStub, state: int) -> int:
    listed = await stub.ListGenerations(pb.ListGenerationsRequest(), timeout=10)
    return sum(g.items for g in listed.generations if g.state == state)


async def killed_half_way(job: subprocess.Popen[bytes], stub: vector_retrieval_pb2_grpc.VectorRetrievalStub) -> None:
    try:
        async with asyncio.timeout(60):
            while await lived_in(stub, pb.GENERATION_STATE_BUILDING) < ITEMS // 4:
                assert job.poll() is None, job.communicate()[1].decode()
                await asyncio.sleep(0.05)
    finally:
        job.kill()
        job.communicate()


def test_a_job_that_is_told_to_end_says_how_to_go_on() -> None:
    """By SIGTERM, as `make reindex` and Kubernetes do."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        job = python("services.vector_retrieval.reindex", retrieval=address, encoder=address)
        try:
            # It calls, so it runs.
            with silent.accept()[0]:
                job.terminate()
                said = job.communicate(timeout=30)[1].decode()
        finally:
            job.kill()
            job.communicate()
    assert job.returncode == 130
    assert "run it again to go on" in said
    assert "Traceback" not in said


async def gone_on_with(job: subprocess.Popen[bytes]) -> str:
    try:
        await asyncio.to_thread(job.wait, 90)
    finally:
        job.kill()
        said = job.communicate()[1].decode()
    assert job.returncode == 0, said
    return said


async def changed(services: Sequence[ServiceProcess], old: Model, new: Model) -> list[Load]:
    """A whole change of the model under a load on every one of `services`, which share an index: the job begins at
    the first, is killed, and goes on at the last."""
    flags = [{"retrieval": f"127.0.0.1:{s.port}", "encoder": new.address, "batch-items": 8} for s in services]
    async with contextlib.AsyncExitStack() as stack:
        stubs = [await stub(service, stack) for service in services]
        items = [item(n) for n in range(ITEMS)]
        await stubs[0].UpsertItems(pb.UpsertItemsRequest(items=items, embeddings=await old.encode(items)), timeout=60)
        # A read that waits, after which those that do not see the catalogue too.
        await stubs[0].GetItems(pb.GetItemsRequest(ids=[items[0].id], consistency=pb.CONSISTENCY_STRONG), timeout=20)
        shares = [range(100 + at, ITEMS, len(stubs)) for at in range(len(stubs))]
        loads = [Load(one, [old, new], asking=old, share=share) for one, share in zip(stubs, shares, strict=True)]
        searching = [asyncio.create_task(load.search()) for load in loads]
        writing = [asyncio.create_task(load.write(old)) for load in loads]
        try:
            await killed_half_way(python("services.vector_retrieval.reindex", **flags[0]), stubs[0])
            said = await gone_on_with(python("services.vector_retrieval.reindex", **flags[-1]))
            assert "going on with generation" in said
            await asyncio.wait_for(asyncio.gather(*writing), 30)
            for load in loads:
                load.asking = new
            await asyncio.sleep(1)
        finally:
            for load in loads:
                load.stopped = True
            for task in writing:
                task.cancel()
            await asyncio.wait({*searching, *writing})
        for task in searching:
            assert task.exception() is None
        acknowledged = {name: title for load in loads for name, title in load.acknowledged.items()}
        refused = {name: title for load in loads for name, title in load.refused.items()} if len(stubs) > 1 else {}
        for one in stubs:
            found = await one.GetItems(pb.GetItemsRequest(ids=list(acknowledged)), timeout=10)
            assert {i.id for i in found.items} == acknowledged.keys()
            assert [i.title for i in found.items if i.title not in (acknowledged[i.id], refused.get(i.id))] == []
            status = await one.GetStatus(pb.GetStatusRequest(), timeout=10)
            assert (status.model_version, status.items) == (new.version, ITEMS)
        return loads


async def stub(
    service: ServiceProcess, stack: contextlib.AsyncExitStack
) -> vector_retrieval_pb2_grpc.VectorRetrievalStub:
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{service.port}"))
    return vector_retrieval_pb2_grpc.VectorRetrievalStub(channel)


@pytest.mark.parametrize("home", [*HOMES, pytest.param("two replicas", marks=pytest.mark.milvus_server)])
async def test_a_model_changes_under_load(
    home: str,
    request: pytest.FixtureRequest,
    second_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = str(tmp_path / "milvus.db") if home == "lite" else request.getfixturevalue("milvus_server").uri
    flags = {"index": f"reindex_{uuid.uuid4().hex[:8]}", "search-timeout-s": "20"}
    async with contextlib.AsyncExitStack() as stack:
        first, second = [stack.enter_context(encoding(bundle)) for bundle in (MODEL, second_model)]
        services = [
            stack.enter_context(running(uri, tmp_path / f"{at}.log", **flags))
            for at in range(2 if home == "two replicas" else 1)
        ]
        old, new = [await stack.enter_async_context(model(address)) for address in (first, second)]
        assert old.version != new.version
        loads = await changed(services, old, new)
    with capsys.disabled():
        for load in loads:
            sys.stdout.write(
                f"\n{home}: {load.searches} searches while the model changed, {len(load.failed)} failed, "
                f"{len(load.wrong)} of a wrong version; {len(load.acknowledged)} items written meanwhile, none missed\n"
            )
    for load in loads:
        assert load.failed == []
        assert load.wrong == []
        assert len(load.by_version) == 2


async def test_with_the_model_before_the_job_goes_back_and_loses_nothing(second_model: Path, tmp_path: Path) -> None:
    flags = {"index": f"back_{uuid.uuid4().hex[:8]}"}
    async with contextlib.AsyncExitStack() as stack:
        first, second = [stack.enter_context(encoding(bundle)) for bundle in (MODEL, second_model)]
        service = stack.enter_context(running(str(tmp_path / "milvus.db"), tmp_path / "service.log", **flags))
        old, new = [await stack.enter_async_context(model(address)) for address in (first, second)]
        asked = await stub(service, stack)

        async def write(by: Model, *items: item_pb2.Item) -> None:
            request = pb.UpsertItemsRequest(items=items, embeddings=await by.encode(items))
            await asked.UpsertItems(request, timeout=60)

        async def change(to: Model) -> str:
            job = python("services.vector_retrieval.reindex", retrieval=f"127.0.0.1:{service.port}", encoder=to.address)
            return await gone_on_with(job)

        await write(old, *(item(n) for n in range(20)))
        await change(new)
        changed_item, added = item(0, edition=1), item(99)
        await write(new, changed_item, added)
        await asked.DeleteItems(pb.DeleteItemsRequest(ids=[item(1).id]), timeout=10)

        said = await change(old)
        assert "going back to generation" in said
        assert "1 items encoded and loaded" in said
        status = await asked.GetStatus(pb.GetStatusRequest(), timeout=10)
        assert (status.model_version, status.items) == (old.version, 20)
        listed = await asked.ListGenerations(pb.ListGenerationsRequest(), timeout=10)
        assert len(listed.generations) == 2
        query = embeddings.pack(await old.rows([added]), old.version)
        answer = await asked.Search(pb.SearchRequest(embeddings=query, limit=1), timeout=10)
        assert [hit.item.id for hit in answer.candidates[0].hits] == [added.id]
        found = await asked.GetItems(pb.GetItemsRequest(ids=[changed_item.id]), timeout=10)
        assert [i.title for i in found.items] == [changed_item.title]
        await write(old, item(100))
