"""Part "engine": the model services against bare loops over the same graph, and against peers."""

import asyncio
import itertools
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
from aisle.common.v1 import priority_pb2
from aisle.encoder.v1 import item_encoder_pb2, item_encoder_pb2_grpc, query_encoder_pb2, query_encoder_pb2_grpc
from aisle.rerank.v1 import reranker_pb2, reranker_pb2_grpc

from shared.inference import Batcher, BiEncoder, Limits, Output
from shared.inference.late_interaction import Storage, TextVectors, interact
from shared.inference.text_rows import text_rows
from shared.rpc.items import item_to_proto
from tests.benchmarks import against, load, texts
from tests.benchmarks.bench import Bench, Measured, Options, Row, best_size, figures_of, forward, rate
from tests.benchmarks.figures import Figure, Goal
from tests.benchmarks.services import service, told, within_ms
from tests.benchmarks.turns import in_turns, ratio

CANDIDATES = 50
BULK = priority_pb2.PRIORITY_BULK


async def throughput(bench: Bench) -> list[Measured]:
    """Items through the service against a bare loop at its best fixed batch."""
    items = texts.items(512)
    # By length, as a loop would do that has all its texts beforehand.
    rows = sorted((bench.items.encode(bench.bundle.item_text(item)) for item in items), key=len)
    tokens = sum(map(len, rows))
    backend = bench.backend()
    best = await best_size(backend, rows[::4])
    requests = [
        item_encoder_pb2.EncodeItemsRequest(items=[item_to_proto(item) for item in items[at : at + 128]], priority=BULK)
        for at in range(0, len(items), 128)
    ]
    async with service("item_encoder") as served, grpc.aio.insecure_channel(served.address) as channel:
        stub = item_encoder_pb2_grpc.ItemEncoderStub(channel)

        async def over_grpc() -> float:
            return await rate(tokens, asyncio.gather(*(stub.EncodeItems(one, timeout=120) for one in requests)))

        async def bare() -> float:
            return await rate(tokens, asyncio.to_thread(forward, backend, rows, best))

        ours, theirs = await in_turns(served.watched(over_grpc), bare, bench.rounds, "items over gRPC / bare loop")
        profile = served.profile()
    note = f"{len(items)} items of {tokens / len(items):.0f} tokens on average; the loop's best fixed batch is {best}"
    raw = {"service_tokens_per_s": ours, "bare_tokens_per_s": theirs, "profile": profile}
    return [Measured(ratio(ours, theirs), raw, note, told(profile))]


async def idle_caller(bench: Bench) -> list[Measured]:
    """One caller at a time: what the service adds to the encoder."""
    questions = itertools.cycle(texts.queries(5000))
    batcher: Batcher[Any, Any] = Batcher(bench.backend(latency=True), Limits())
    encoder = BiEncoder(bench.bundle, batcher)
    await batcher.start()
    await encoder.warm_up()
    try:
        async with (
            service("query_encoder", "--cache-bytes", "0") as served,
            grpc.aio.insecure_channel(served.address) as channel,
        ):
            stub = query_encoder_pb2_grpc.QueryEncoderStub(channel)

            async def over_grpc() -> float:
                return await _p50(
                    lambda: stub.EncodeQueries(query_encoder_pb2.EncodeQueriesRequest(queries=[next(questions)]))
                )

            async def in_process() -> float:
                return await _p50(lambda: encoder.encode_queries([next(questions)]))

            ours, theirs = await in_turns(served.watched(over_grpc), in_process, bench.rounds, "one idle caller")
            profile = served.profile()
    finally:
        await batcher.close()
    raw = {"service_p50_ms": ours, "in_process_p50_ms": theirs, "profile": profile}
    added = statistics.median(ours) - statistics.median(theirs)
    note = f"p50 {statistics.median(ours):.2f} ms and {statistics.median(theirs):.2f} ms"
    where = told(profile)
    return [Measured(ratio(ours, theirs), raw, note, where), Measured(added, raw, note, where)]


async def _p50(call: Callable[[], Awaitable[Any]], count: int = 150) -> float:
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


async def mixed_lengths(bench: Bench) -> list[Measured]:
    """The batcher against batches of a fixed count in order of arrival, on queries and items together."""
    short = [bench.queries.encode(query) for query in texts.queries(700)]
    # Whole descriptions, which fill what the model reads.
    long = [bench.items.encode(f"{item.title} {item.description}") for item in texts.items(100)]
    # One long text among seven short ones, as a service that takes both sees them.
    rows = [row for at, some in enumerate(long) for row in (*short[at * 7 : at * 7 + 7], some)]
    tokens = sum(map(len, rows))
    backend = bench.backend()
    best = await best_size(backend, rows)
    batcher: Batcher[Any, Any] = Batcher(backend, Limits(rows=len(rows)))
    await batcher.start()

    async def batched() -> float:
        return await rate(tokens, asyncio.gather(*(batcher.submit([row]) for row in rows)))

    async def fifo() -> float:
        return await rate(tokens, asyncio.to_thread(forward, backend, rows, best))

    try:
        ours, theirs = await in_turns(batched, fifo, bench.rounds, "mixed lengths")
    finally:
        await batcher.close()
    lengths = sorted(map(len, rows))
    note = (
        f"{len(rows)} texts of {lengths[0]} to {lengths[-1]} tokens, {tokens / len(rows):.0f} on average; "
        f"FIFO in its best count, {best}, on the same graph"
    )
    raw = {"batcher_tokens_per_s": ours, "fifo_tokens_per_s": theirs}
    return [Measured(ratio(ours, theirs), raw, note)]


async def interactive_under_bulk(bench: Bench) -> list[Measured]:
    """A shopper's p99 while a bulk job keeps the service full."""
    bulk = [bench.bundle.item_text(item)[:300] for item in texts.items(128)]
    request = query_encoder_pb2.EncodeQueriesRequest(queries=bulk, priority=BULK)
    waited: Counter[float] = Counter()
    ran: Counter[float] = Counter()
    async with service("query_encoder", "--cache-bytes", "0") as served:

        async def quiet() -> float:
            return float((await load.measured(f"grpc://{served.address}", callers=1, seconds=bench.seconds))["p99_ms"])

        waits = partial(served.buckets, "aisle_engine_queue_seconds", priority="interactive")
        passes = partial(served.buckets, "aisle_engine_forward_seconds")

        async def busy() -> float:
            async with _kept_full(served.address, request):
                waited.subtract(waits())
                ran.subtract(passes())
                p99_ms = await quiet()
                waited.update(waits())
                ran.update(passes())
                return p99_ms

        ours, theirs = await in_turns(busy, quiet, bench.rounds, "interactive under bulk")
    tokens = statistics.mean(len(bench.queries.encode(text)) for text in bulk)
    wait, run = ([round(within_ms(each, share), 1) for share in (0.5, 0.99)] for each in (waited, ran))
    raw = {"busy_p99_ms": ours, "idle_p99_ms": theirs, "busy_wait_p50_p99_ms": wait, "busy_pass_p50_p99_ms": run}
    note = (
        f"bulk rows of {tokens:.0f} tokens, four calls of {len(bulk)} always in flight; "
        f"p99 {statistics.median(ours):.1f} ms and {statistics.median(theirs):.1f} ms. Meanwhile half and 99 % of the "
        f"interactive rows waited {wait[0]} and {wait[1]} ms for their pass, and of all passes took {run[0]} and "
        f"{run[1]} ms"
    )
    return [Measured(ratio(ours, theirs), raw, note)]


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
            # A bulk caller that failed left the service less than full: the p99 would flatter it.
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def reranking(bench: Bench) -> list[Measured]:
    """Candidates of one query that the re-ranker has not seen, against a bare loop of the same work."""
    items = texts.items(CANDIDATES * 12)
    pages = [items[at : at + CANDIDATES] for at in range(0, len(items), CANDIDATES)]
    asked_of = itertools.cycle(zip(itertools.cycle(texts.queries(500)), pages, strict=False))
    # Each page is ranked by both: pages differ in length more than the two differ in speed.
    served_work, bare_work = itertools.tee(asked_of)
    backend = bench.backend(Output.TOKENS)
    pooling = bench.bundle.manifest.pooling
    sample = [bench.items.encode(bench.bundle.item_text(item)) for item in items[: CANDIDATES + 1]]
    best = await best_size(backend, sample, (8, 16, 32, CANDIDATES + 1))

    def loop(query: str, group: Sequence[Any]) -> None:
        rows = [bench.queries.encode(query), *(bench.items.encode(bench.bundle.item_text(item)) for item in group)]
        asked, *found = (text_rows(tokens, pooling) for tokens in forward(backend, rows, best))
        interact(asked, [TextVectors.pack(vectors, Storage.INT8) for vectors in found])

    async with (
        service("reranker", "--item-cache-bytes", "0") as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        stub = reranker_pb2_grpc.RerankerStub(channel)

        async def over_grpc() -> float:
            query, page = next(served_work)
            request = reranker_pb2.RerankRequest(query=query, items=[item_to_proto(one) for one in page])
            return await rate(CANDIDATES, stub.Rerank(request, timeout=30))

        async def bare() -> float:
            return await rate(CANDIDATES, asyncio.to_thread(loop, *next(bare_work)))

        # A round is short: more of them.
        ours, theirs = await in_turns(served.watched(over_grpc), bare, bench.rounds * 3, "re-ranker")
        profile = served.profile()
    raw = {"service_pairs_per_s": ours, "bare_pairs_per_s": theirs, "profile": profile}
    note = f"late interaction, no item vectors kept, one call at a time; the loop's best fixed batch is {best}"
    return [Measured(ratio(ours, theirs), raw, note, told(profile))]


_IDLE = "one idle caller: service p50"

ROWS: dict[str, Row[Bench]] = {
    "throughput": Row((Goal("item encoder over gRPC ÷ bare ONNX Runtime loop, tokens/s", 0.9),), throughput),
    "idle": Row(
        (Goal(f"{_IDLE} ÷ in-process p50", 1.6, "lower"), Goal(f"{_IDLE} − in-process p50", 1.0, "lower", "ms")),
        idle_caller,
    ),
    "mixed": Row((Goal("mixed lengths: batcher ÷ count-batched FIFO, tokens/s", 1.5),), mixed_lengths),
    "interactive": Row((Goal("interactive p99 under bulk ÷ idle", 3.0, "lower"),), interactive_under_bulk),
    "rerank": Row((Goal("re-ranker, 50 candidates ÷ bare loop, pairs/s", 0.9),), reranking),
    **against.ROWS,
}


async def run(options: Options) -> list[Figure]:
    """All rows, or the one wanted."""
    return await figures_of(ROWS, Bench(options.quick), options.only)
