"""Part "mesh": whole searches through the real processes, against the pipeline a shop would write, and under load."""

import contextlib
import os
import statistics
from functools import partial
from typing import Any

import grpc
from aisle.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from deploy.local.spec import KINDS
from shared.settings import ServiceSettings
from tests.benchmarks import switching, texts
from tests.benchmarks.bench import Measured, Options, Row, figures_of
from tests.benchmarks.figures import Figure, Goal
from tests.benchmarks.gateway_load import PATIENCE_S
from tests.benchmarks.meshes import CALLERS, ITEMS, Env, Meshes, Running
from tests.benchmarks.services import service
from tests.benchmarks.switching import SWITCHED
from tests.benchmarks.turns import in_turns, ratio
from tests.support.collector import collecting

BUSY, OVERLOAD = 0.6, 10
"""Of the peak load."""
ENGINE_CALLERS = 64
PARTS = ("gateway", "query_encoder", "vector_retrieval", "reranker", "Milvus")
_SAMPLE = 50
_PAGE = 10

_SAMPLED = ServiceSettings.model_fields["trace_sample_ratio"].default
_SHARED = "two cores for everything, the load included"


async def against_pipeline(bench: Meshes, model: str, *, keep: bool) -> list[Measured]:
    """Searches/s through the mesh ÷ by the pipeline, each with as many callers."""
    mesh = await bench.mesh()
    async with bench.pipeline(model, keep=keep) as piped:
        asked = texts.queries(_SAMPLE)
        alike = _overlap(await _found(mesh, asked), await piped.found(asked))
        kept = "keeps" if keep else "does not keep"
        ours, theirs = await in_turns(
            mesh.peak,
            piped.peak,
            bench.rounds if keep else 3,
            f"{CALLERS} callers: mesh / {model} pipeline that {kept} item vectors",
        )
    note = (
        f"{statistics.median(ours):.0f} and {statistics.median(theirs):.0f} searches/s over {ITEMS:,} items "
        f"({bench.corpus.real}); the pipeline {kept} items' token vectors and encodes one query a forward pass; "
        f"{alike:.0%} of the first {_PAGE} are the same; query cache off; {_SHARED}"
    )
    return [Measured(ratio(ours, theirs), {"mesh": ours, "pipeline": theirs, "overlap": alike}, note)]


async def _found(mesh: Running, queries: list[str]) -> list[list[str]]:
    async with grpc.aio.insecure_channel(mesh.mesh.address("gateway")) as channel:
        stub = gateway_pb2_grpc.GatewayStub(channel)
        answers = [
            await stub.Search(gateway_pb2.SearchRequest(query=query, page_size=_PAGE), timeout=10) for query in queries
        ]
    return [[result.item.id for result in answer.results] for answer in answers]


def _overlap(ours: list[list[str]], theirs: list[list[str]]) -> float:
    return statistics.mean(len(set(a) & set(b)) / max(len(a), 1) for a, b in zip(ours, theirs, strict=True))


async def own_share(bench: Meshes) -> list[Measured]:
    """What of a search is the gateway's: of one caller at a time, since under load everything waits for a core."""
    mesh = await bench.mesh()
    runs = [await mesh.loads.of() for _ in range(bench.rounds)]
    stages = {name: statistics.median(run["stages_p50_ms"][name] for run in runs) for name in runs[0]["stages_p50_ms"]}
    note = (
        "what its caller waited less the stages of the same answer (calls of encoder, index and re-ranker, one after "
        "another, as the gateway waited for them): its own work and the way from and to its caller. Whole: p50 "
        f"{statistics.median(run['p50_ms'] for run in runs):.1f} ms; "
        + ", ".join(f"{name} {taken:.1f}" for name, taken in stages.items())
    )
    return [Measured(statistics.median(run["own_p50_ms"] for run in runs), {"runs": runs}, note)]


async def cpu(bench: Meshes) -> list[Measured]:
    """What a search costs each part when batches are full: what replicas are counted by."""
    mesh = await bench.mesh()
    runs: list[dict[str, float]] = []
    for _ in range(bench.rounds):
        before = await bench.cpu_s()
        done = (await mesh.loads.of(callers=CALLERS))["requests"]
        after = await bench.cpu_s()
        runs.append({name: (after[name] - before[name]) * 1000 / done for name in after})
    note = f"CPU of its process, all threads, ÷ searches; {CALLERS} callers over {ITEMS:,} items ({bench.corpus.real})"
    return [Measured(statistics.median(run[name] for run in runs), {"runs": runs}, note) for name in PARTS]


async def tail(bench: Meshes) -> list[Measured]:
    """The slowest of a hundred against the middle one, on a mesh that is busy but not full."""
    mesh = await bench.mesh()
    rate = BUSY * await bench.peak()
    # A p99 of fewer than some 500 answers is one of its five slowest, by chance.
    seconds = max(bench.seconds, 500 / rate)
    runs = [await mesh.loads.of(rate=rate, seconds=seconds) for _ in range(bench.rounds)]
    note = (
        f"arrivals at random, {rate:.0f}/s: p50 {statistics.median(run['p50_ms'] for run in runs):.0f} ms, p99 "
        f"{statistics.median(run['p99_ms'] for run in runs):.0f} ms, timed from when each was due; sent "
        f"{statistics.median(run['sent_late_p99_ms'] for run in runs):.1f} ms late (p99); {_SHARED}"
    )
    return [Measured(statistics.median(run["p99_ms"] / run["p50_ms"] for run in runs), {"runs": runs}, note)]


async def overload(bench: Meshes) -> list[Measured]:
    """What is left of the peak when ten times as many ask."""
    mesh, rate = await bench.mesh(), OVERLOAD * await bench.peak()
    runs: list[dict[str, Any]] = []

    async def flooded() -> float:
        before = await bench.cpu_s()
        run = await mesh.loads.of(rate=rate)
        after = await bench.cpu_s()
        runs.append({**run, "cpu_s": {name: after[name] - before[name] for name in after}})
        return float(run["good_per_s"])

    ours, peaks = await in_turns(flooded, mesh.peak, bench.rounds, f"{rate:.0f} searches/s / as many as it can answer")
    counted = runs[1:]
    failed: dict[str, int] = {}
    for run in counted:
        for reason, count in run["failed"].items():
            failed[reason] = failed.get(reason, 0) + count
    # A load of `seconds` is sent for one more, which is not counted.
    load, gateway, rest = (
        statistics.median(spent) / (bench.seconds + 1)
        for spent in zip(*(_spent(run["client_cpu_s"], run["cpu_s"]) for run in counted), strict=True)
    )
    told = ", ".join(f"{count:,} {reason}" for reason, count in failed.items())
    note = (
        f"{statistics.median(ours):.0f} of {rate:.0f} searches/s answered in full within {PATIENCE_S:g} s, p50 "
        f"{statistics.median(run['p50_ms'] for run in counted):.0f} ms, and {statistics.median(peaks):.0f} at the peak "
        f"({CALLERS} callers); not answered: {told}; "
        f"refused without a reason: {sum(run['without_reason'] for run in counted)}; degraded: "
        f"{sum(sum(run['degraded'].values()) for run in counted)}; of {len(os.sched_getaffinity(0))} cores the load "
        f"took {load:.2f}, the gateway, which refuses, {gateway:.2f}, and all that is behind it {rest:.2f}"
    )
    return [Measured(ratio(ours, peaks), {"runs": counted, "peaks": peaks}, note)]


def _spent(load: float, by_part: dict[str, float]) -> tuple[float, float, float]:
    """Seconds of CPU of the load, of the gateway, and of all the others."""
    return load, by_part["gateway"], sum(by_part.values()) - by_part["gateway"]


async def telemetry_search(bench: Meshes) -> list[Measured]:
    """What metrics and traces cost a search."""
    with collecting() as collector:
        mesh = (await bench.mesh("switched", _switched(collector.endpoint))).mesh
        rates = await switching.on_and_off(
            f"gateway://{mesh.address('gateway')}",
            [pid for kind in KINDS if (pid := mesh.pid(kind.name)) is not None],
            callers=CALLERS,
            loads=2 * bench.rounds,
            title=f"{CALLERS} callers: telemetry on / off",
        )
    return [_on_by_off(rates, "searches/s", len(collector.spans))]


async def telemetry_engine(bench: Meshes) -> list[Measured]:
    """The same of the query encoder alone."""
    with collecting() as collector:
        env = _switched(collector.endpoint)["query_encoder"]
        async with service("query_encoder", "--cache-bytes", "0", env=env) as running:
            rates = await switching.on_and_off(
                f"grpc://{running.address}",
                [running.pid],
                callers=ENGINE_CALLERS,
                loads=2 * bench.rounds,
                title=f"{ENGINE_CALLERS} callers of the query encoder: telemetry on / off",
            )
    return [_on_by_off(rates, "requests/s", len(collector.spans))]


def _switched(endpoint: str) -> Env:
    return {kind.name: {**SWITCHED, f"{kind.prefix}OTLP_ENDPOINT": endpoint} for kind in KINDS}


def _on_by_off(rates: switching.Rates, unit: str, spans: int) -> Measured:
    on, off = rates
    found, error = switching.ratio(rates)
    note = (
        f"{statistics.median(on):.0f} and {statistics.median(off):.0f} {unit}, {len(on)} pairs, standard error "
        f"{error:.3f}; on: metrics, and {_SAMPLED:g} of the requests traced (the default) to an OTLP collector on the "
        f"same cores, which got {spans:,} spans; off: neither, in the same processes, second by second"
    )
    return Measured(found, {"on": on, "off": off}, note)


async def envoy(bench: Meshes) -> list[Measured]:
    """What the mesh around the services costs."""
    plain, proxied = await bench.mesh(), await bench.mesh("envoy", between="envoy")
    with_, without = await in_turns(proxied.peak, plain.peak, bench.rounds, f"{CALLERS} callers: with Envoy / without")
    note = (
        f"{statistics.median(with_):.0f} and {statistics.median(without):.0f} searches/s; every call through an Envoy, "
        f"mTLS on each side of it, the callers' too; {_SHARED}, Envoy's as well"
    )
    return [Measured(ratio(with_, without), {"envoy": with_, "plain": without}, note)]


def _pipeline(model: str, keep: bool, goal: float | None, what: str) -> Row[Meshes]:
    name = f"Search, {CALLERS} callers ÷ Python pipeline ({what}), searches/s"
    return Row((Goal(name, goal),), partial(against_pipeline, model=model, keep=keep))


ROWS: dict[str, Row[Meshes]] = {
    "torch": _pipeline("torch", True, 4.0, "torch, items' token vectors kept"),
    "onnx": _pipeline("onnx", True, 1.0, "the same int8 graph, items' token vectors kept"),
    "torch-plain": _pipeline("torch", False, None, "torch, items encoded anew"),
    "onnx-plain": _pipeline("onnx", False, None, "the same int8 graph, items encoded anew"),
    "own": Row((Goal("the gateway's own share of a Search, p50", 2.0, "lower", "ms"),), own_share),
    "cpu": Row(tuple(Goal(f"CPU a search: {name}", None, "lower", "ms") for name in PARTS), cpu),
    "tail": Row((Goal(f"Search p99 ÷ p50 at {BUSY:.0%} of the peak load", 3.0, "lower"),), tail),
    "overload": Row((Goal(f"goodput at {OVERLOAD} × the peak load ÷ at the peak", 0.9),), overload),
    "envoy": Row((Goal("with Envoy and mTLS ÷ without, searches/s", 0.85),), envoy),
    "telemetry-search": Row(
        (Goal("Search, metrics and sampled tracing on ÷ off, searches/s", 0.97),), telemetry_search
    ),
    "telemetry-engine": Row(
        (Goal("query encoder, metrics and sampled tracing on ÷ off, requests/s", 0.97),), telemetry_engine
    ),
}


async def run(options: Options) -> list[Figure]:
    """All rows, or the one wanted."""
    async with contextlib.AsyncExitStack() as stack:
        return await figures_of(ROWS, Meshes(options.quick, stack), options.only)
