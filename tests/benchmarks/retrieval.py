"""Part "retrieval": the service against bare pymilvus on one collection, and what it finds against what is there."""

import contextlib
import statistics
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from tests.benchmarks import filtered, hybrid, ingest, vectors
from tests.benchmarks.bench import Bench, Measured, Options, Row, figures_of
from tests.benchmarks.figures import Figure, Goal
from tests.benchmarks.indexes import indexed
from tests.benchmarks.search_load import Loads
from tests.benchmarks.shops import Shops
from tests.benchmarks.turns import Measure, in_turns, ratio

CONCURRENT = 16
GROWTH = 10
HITS = 100
"""As the gateway asks for candidates."""


def _load(loads: Loads, target: str, figure: str, callers: int, limit: int = HITS) -> Measure:
    async def load_it() -> float:
        return float((await loads.of(target, callers=callers, limit=limit))[figure])

    return load_it


async def latency(bench: Shops) -> list[Measured]:
    """One caller at a time: what the service adds to bare pymilvus."""
    index, loads = await bench.on("server"), await bench.loads()
    found, raw = {}, {}
    for hits in (HITS, 10):
        one = partial(_load, loads, figure="p50_ms", callers=1, limit=hits)
        ours, theirs = await in_turns(
            one(index.service_target), one(index.bare_target), bench.rounds, f"one caller, {hits} hits"
        )
        found[hits] = statistics.median(ours) - statistics.median(theirs)
        raw[f"{hits}_hits"] = {"service_p50_ms": ours, "pymilvus_p50_ms": theirs}
    note = (
        f"{bench.size:,} × {index.vectors.shape[1]}, {HITS} hits with their payloads: p50 "
        f"{statistics.median(raw[f'{HITS}_hits']['service_p50_ms']):.2f} ms and "
        f"{statistics.median(raw[f'{HITS}_hits']['pymilvus_p50_ms']):.2f} ms; with 10 hits +{found[10]:.2f} ms"
    )
    return [Measured(found[HITS], raw, note)]


async def throughput(bench: Shops) -> list[Measured]:
    """Many callers at once, against as many threads of bare pymilvus."""
    index, loads = await bench.on("server"), await bench.loads()
    many = partial(_load, loads, figure="requests_per_s", callers=CONCURRENT)
    ours, theirs = await in_turns(
        many(index.service_target), many(index.bare_target), bench.rounds, f"{CONCURRENT} callers"
    )
    raw = {"service_searches_per_s": ours, "pymilvus_searches_per_s": theirs}
    note = (
        f"{HITS} hits with their payloads, the store and the load on the same cores: "
        f"{statistics.median(ours):.0f} and {statistics.median(theirs):.0f} searches/s"
    )
    return [Measured(ratio(ours, theirs), raw, note)]


async def growth(bench: Shops) -> list[Measured]:
    """What a search takes when there is ten times as much to search."""
    if not bench.full:
        raise LookupError("loading the larger index takes a quarter of an hour: make bench PART=retrieval FULL=1")
    small, loads = await bench.on("server"), await bench.loads()
    size = GROWTH * bench.size
    titles = bench.titles().items
    items = [replace(titles[at % len(titles)], id=f"{at}") for at in range(size)]
    rows = vectors.enlarged(await bench.rows(), size)
    one = partial(_load, loads, figure="p50_ms", callers=1)
    raw: dict[str, Any] = {}
    async with indexed("titles_large", await bench.server(), items, rows, bench.bundle.version) as large:
        for state in ("loaded", "merged"):
            merging = [await index.merge() for index in (large, small)] if state == "merged" else [0.0, 0.0]
            segments = [await large.segments(), await small.segments()]
            ours, theirs = await in_turns(
                one(large.service_target),
                one(small.service_target),
                bench.rounds,
                f"{size:,} / {bench.size:,} items, {len(segments[0])} and {len(segments[1])} segments",
            )
            raw[state] = {"large_p50_ms": ours, "small_p50_ms": theirs, "segments": segments, "merging_s": merging}
    raw["load_s"] = {size: large.load_s, bench.size: small.load_s}
    merged, loaded = raw["merged"], raw["loaded"]
    note = (
        f"{HITS} hits, p50 {_p50s(merged)}, {merged['merging_s'][0]:.0f} s after it was asked to merge them; before "
        f"{_p50s(loaded)}; loaded and indexed in {large.load_s:.0f} and {small.load_s:.0f} s; vectors beyond the "
        "real ones are real ones with noise of half their length"
    )
    return [Measured(ratio(merged["large_p50_ms"], merged["small_p50_ms"]), raw, note)]


def _p50s(state: Mapping[str, Any]) -> str:
    large, small = (statistics.median(state[f"{size}_p50_ms"]) for size in ("large", "small"))
    segments = " and ".join(str(len(rows)) for rows in state["segments"])
    return f"{large:.2f} and {small:.2f} ms over {segments} segments"


async def recall(bench: Shops) -> list[Measured]:
    """What the index leads to, of what comparing every vector finds."""
    index, asked = await bench.on("server"), await bench.asked(1_000)
    found = await index.search(asked, HITS)
    score = vectors.recall(index.vectors, asked, index.positions(found), HITS)
    note = f"{len(asked):,} real queries over {bench.size:,} {bench.titles().real}; M 32, efConstruction 200, ef 256"
    return [Measured(score, {"queries": len(asked)}, note)]


ROWS: dict[str, Row[Shops]] = {
    "latency": Row((Goal("search p50 through the service − bare pymilvus, server", 1.5, "lower", "ms"),), latency),
    "recall": Row((Goal("recall@100 against exact search, HNSW, server", 0.98),), recall),
    "throughput": Row(
        (Goal(f"searches/s, {CONCURRENT} concurrent: service ÷ bare pymilvus threads", 0.8),), throughput
    ),
    **filtered.ROWS,
    **hybrid.ROWS,
    "growth": Row((Goal(f"growth: search p50 at {GROWTH} times the items, server", 2.0, "lower"),), growth),
}


async def run(options: Options) -> list[Figure]:
    """All rows, or the one wanted. Ingest has meshes of its own, so the shops that are searched are closed by then."""
    async with contextlib.AsyncExitStack() as stack:
        searched = await figures_of(ROWS, Shops(options.quick, options.full, stack), options.only)
    return searched + await figures_of(ingest.ROWS, Bench(options.quick, options.full), options.only)
