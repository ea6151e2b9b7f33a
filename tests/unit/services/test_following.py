"""The services that run a model follow their registry's channel, as their `__main__` wires them."""

import asyncio
import json
import shutil
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from aisle.catalog.v1 import item_pb2
from aisle.common.v1 import model_pb2
from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc, query_encoder_pb2, query_encoder_pb2_grpc
from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc

from services.item_encoder.__main__ import build as build_item_encoder
from services.item_encoder.settings import ItemEncoderSettings
from services.query_encoder.__main__ import build as build_query_encoder
from services.query_encoder.settings import QueryEncoderSettings
from services.reranker.__main__ import build as build_reranker
from services.reranker.settings import RerankerSettings
from shared.bundles import Bundle, BundleKind, Channel, Registry
from shared.inference import BackendName
from shared.rpc.embeddings import unpack
from shared.telemetry import metrics
from tests.support.registry import change, put
from tests.support.tiny_bundle import make_bundle
from tests.unit.services.conftest import Serve

TEXT = "red lamp by the window"
"""Longer than the second bundle reads."""


@dataclass
class Service:
    name: str
    build: Any
    settings: Any
    stub: Any
    call: Callable[[Any], Awaitable[tuple[str, bytes]]]
    """The version that answered, and the numbers."""


async def encode_query(stub: Any) -> tuple[str, bytes]:
    answer = await stub.EncodeQueries(query_encoder_pb2.EncodeQueriesRequest(queries=[TEXT]))
    return answer.embeddings.model_version, unpack(answer.embeddings).tobytes()


async def encode_item(stub: Any) -> tuple[str, bytes]:
    items = [item_pb2.Item(id="a", title=TEXT)]
    answer = await stub.EncodeItems(item_encoder_pb2.EncodeItemsRequest(items=items))
    return answer.embeddings.model_version, unpack(answer.embeddings).tobytes()


async def rerank(stub: Any) -> tuple[str, bytes]:
    items = [item_pb2.Item(id="a", title="a white rug in the hall")]
    answer = await stub.Rerank(reranker_pb2.RerankRequest(query=TEXT, items=items))
    return answer.model_version, np.float32(answer.scores[0].score).tobytes()


SERVICES = [
    Service(
        "query_encoder",
        build_query_encoder,
        # A query that is known costs no time in which anything could happen.
        partial(QueryEncoderSettings, cache_bytes=0),
        query_encoder_pb2_grpc.QueryEncoderStub,
        encode_query,
    ),
    Service(
        "item_encoder", build_item_encoder, ItemEncoderSettings, item_encoder_pb2_grpc.ItemEncoderStub, encode_item
    ),
    Service("reranker", build_reranker, RerankerSettings, reranker_pb2_grpc.RerankerStub, rerank),
]


@dataclass
class Running:
    """A service that follows a registry whose live bundle is the first of two."""

    service: Service
    stub: Any
    registry: Registry
    first: Bundle
    second: Bundle
    answers: list[tuple[str, bytes]] = field(default_factory=list)

    def promote(self, version: str) -> None:
        self.registry.move(Channel.LIVE, change(version))

    async def version(self) -> str:
        return str((await self.stub.GetModel(model_pb2.GetModelRequest())).model.version)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(1_000):
            if await condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("not within 10 s")

    async def until_version(self, version: str) -> None:
        async def reached() -> bool:
            return await self.version() == version

        await self.until(reached)


@pytest.fixture(params=SERVICES, ids=lambda service: service.name)
async def running(request: pytest.FixtureRequest, serve: Serve, tmp_path: Path) -> Running:
    service: Service = request.param
    first, second = (
        make_bundle(tmp_path / name, BundleKind.BI_ENCODER, max_query_tokens=tokens, max_item_tokens=tokens)
        for name, tokens in (("first", 16), ("second", 5))
    )
    registry = put(str(tmp_path / "registry"), Channel.LIVE, first)
    registry.add(second.path, second.manifest)
    settings = service.settings(
        bundle=f"registry:{registry.location}#live", bundle_poll_s=0.02, backend=BackendName.DUMMY
    )
    return Running(service, service.stub(await serve(service.build, settings)), registry, first, second)


def outcomes(outcome: str) -> float:
    return metrics.ENGINE_SWITCHES.labels(outcome)._value.get()


def batch_threads(name: str) -> int:
    return sum(thread.name == f"{name}-batches" for thread in threading.enumerate())


async def test_a_new_version_answers_without_a_failed_or_mixed_call(running: Running) -> None:
    stopped = asyncio.Event()

    async def ask() -> None:
        while not stopped.is_set():
            running.answers.append(await running.service.call(running.stub))

    others = batch_threads(running.service.name) - 1
    switched = outcomes("switched")
    asking = [asyncio.create_task(ask()) for _ in range(8)]
    for version in (running.second.version, running.first.version, running.second.version):
        running.promote(version)
        await running.until_version(version)
        await asyncio.sleep(0.05)
    stopped.set()
    await asyncio.gather(*asking)
    # Each version's numbers are its own and always the same.
    assert len(set(running.answers)) == 2
    assert len({numbers for _, numbers in set(running.answers)}) == 2
    assert {version for version, _ in running.answers} == {running.first.version, running.second.version}
    assert outcomes("switched") == switched + 3

    async def closed() -> bool:
        return batch_threads(running.service.name) == others + 1

    await running.until(closed)


async def test_a_bundle_that_cannot_be_loaded_leaves_the_old_one_answering(running: Running) -> None:
    failed = outcomes("failed")
    tokenizer = Path(running.registry.location) / "bundles" / running.second.version / "tokenizer.json"
    whole = tokenizer.read_text()
    tokenizer.write_text("{}")
    with structlog.testing.capture_logs() as logs:
        running.promote(running.second.version)

        async def counted() -> bool:
            return outcomes("failed") >= failed + 3

        await running.until(counted)
    assert await running.version() == running.first.version
    assert (await running.service.call(running.stub))[0] == running.first.version
    told = [entry for entry in logs if entry["log_level"] == "error"]
    assert len(told) == 1, "told once"
    assert "tokenizer.json" in told[0]["why"]
    tokenizer.write_text(whole)
    await running.until_version(running.second.version)


@pytest.mark.parametrize("harm", ["removed", "torn", "unknown version"])
async def test_a_channel_that_cannot_be_followed_leaves_the_old_one_answering(running: Running, harm: str) -> None:
    failed = outcomes("failed")
    channel = Path(running.registry.location) / "channels" / "live.json"
    if harm == "removed":
        shutil.rmtree(channel.parent)
    elif harm == "torn":
        channel.write_text(channel.read_text()[:40])
    else:
        running.promote("a" * 16)

    async def counted() -> bool:
        return outcomes("failed") > failed

    await running.until(counted)
    assert (await running.service.call(running.stub))[0] == running.first.version
    channel.parent.mkdir(exist_ok=True)
    channel.write_text(json.dumps({"changes": [change(running.second.version).model_dump(mode="json")]}))
    await running.until_version(running.second.version)


async def test_a_service_that_names_a_folder_follows_nothing(serve: Serve, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", BundleKind.BI_ENCODER)
    settings = QueryEncoderSettings(bundle=str(bundle.path), backend=BackendName.DUMMY, bundle_poll_s=0.01)
    stub = query_encoder_pb2_grpc.QueryEncoderStub(await serve(build_query_encoder, settings))
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "follow-channel"]
    assert (await encode_query(stub))[0] == bundle.version


async def test_a_channel_without_a_bundle_does_not_start(serve: Serve, tmp_path: Path) -> None:
    settings = QueryEncoderSettings(bundle=f"registry:{tmp_path}#live", backend=BackendName.DUMMY)
    with pytest.raises(Exception, match="points to no bundle yet"):
        await serve(build_query_encoder, settings)
