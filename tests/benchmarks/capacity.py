"""What a shop of a size needs, worked out from what one replica was measured to do.

    python -m tests.benchmarks.capacity        # the tables of docs/scaling.md, from what stands in INPUTS
    python -m tests.benchmarks.capacity build/bench/mesh.json    # from a run of make bench PART=mesh

Arithmetic alone. A replica is planned at `BUSY` of its cores, since queues grow without bound near all of them
(L. Kleinrock, Queueing Systems, 1975), and there are two of everything at least.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

BUSY = 0.6
"""Share of its cores at which a replica is planned."""
CORES = {"gateway": 1, "query_encoder": 2, "vector_retrieval": 1, "reranker": 2}
"""A replica's. Where it is one, all is one event loop; the models have what the base gives them."""
LEAST = 2
DIMENSIONS, HNSW_M = 384, 32
NODE_GIB, NODE_CORES = 64, 16
"""A query node."""
SEGMENT_BYTES = 2**30
"""Milvus's default (`dataCoord.segment.maxSize`): a search looks into every segment."""
_FILLED = 0.7
"""Share of a node's memory that vectors may take: segments that are compacted lie there twice for a while."""

RATES = (100, 1_000, 10_000, 100_000)
ITEMS = (10**6, 10**8, 10**10)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What was measured. `cpu_ms`: of a search, by part. `payload_bytes`: of an item beside its vector. `events_per_s`:
    that one log on PostgreSQL makes durable, in batches of 100."""

    cpu_ms: Mapping[str, float]
    payload_bytes: int
    events_per_s: float


INPUTS = Inputs(
    cpu_ms={"gateway": 3.1, "query_encoder": 2.9, "vector_retrieval": 2.3, "reranker": 1.9, "Milvus": 3.0},
    payload_bytes=955,
    events_per_s=11_255,
)
"""Of two cores of an Intel Xeon with AVX512-VNNI, in three short rounds; `make bench PART=mesh` measures them again."""


def replicas(inputs: Inputs, service: str, searches_per_s: float) -> int:
    """Of a service without a store."""
    cores = searches_per_s * inputs.cpu_ms[service] / 1000
    return max(LEAST, math.ceil(cores / (CORES[service] * BUSY)))


def index_bytes(inputs: Inputs, items: int) -> int:
    """Of memory: float32 vectors, HNSW's links at its lowest level (2 M of 4 bytes; Faiss wiki, "Guidelines to choose
    an index"), and what is read with a hit."""
    return items * (4 * DIMENSIONS + 2 * 4 * HNSW_M + inputs.payload_bytes)


def segments(inputs: Inputs, items: int) -> int:
    """That a search without a partition looks into."""
    return math.ceil(index_bytes(inputs, items) / SEGMENT_BYTES)


def memory_nodes(inputs: Inputs, items: int) -> int:
    """Query nodes that hold the index once."""
    return max(LEAST, math.ceil(index_bytes(inputs, items) / (NODE_GIB * 2**30 * _FILLED)))


def search_nodes(inputs: Inputs, items: int, searches_per_s: float) -> int:
    """Query nodes whose cores can search every segment `searches_per_s` times."""
    cores = searches_per_s * segments(inputs, items) * inputs.cpu_ms["Milvus"] / 1000
    return max(LEAST, math.ceil(cores / (NODE_CORES * BUSY)))


def nodes(inputs: Inputs, items: int, searches_per_s: float) -> int:
    """What memory or cores ask for, whichever is more."""
    return max(memory_nodes(inputs, items), search_nodes(inputs, items, searches_per_s))


def measured(inputs: Inputs, rows: Sequence[Mapping[str, object]]) -> Inputs:
    """`inputs` with the CPU of a search as a run of part "mesh" found it."""
    prefix = "CPU a search: "
    found = {str(row["name"]).removeprefix(prefix): row["value"] for row in rows if str(row["name"]).startswith(prefix)}
    return replace(inputs, cpu_ms={**inputs.cpu_ms, **{name: v for name, v in found.items() if isinstance(v, float)}})


def tables(inputs: Inputs) -> str:
    """Markdown."""
    return "\n\n".join((_inputs(inputs), _stateless(inputs), _index(inputs), _nodes(inputs)))


def _inputs(inputs: Inputs) -> str:
    names = list(inputs.cpu_ms)
    return _table(["CPU a search, ms", *names], [["measured", *(f"{inputs.cpu_ms[name]:.1f}" for name in names)]])


def _stateless(inputs: Inputs) -> str:
    rows = [
        [f"{rate:,}", *(f"{replicas(inputs, name, rate):,}" for name in CORES), f"{_cores(inputs, rate):,}"]
        for rate in RATES
    ]
    return _table(["searches/s", *(f"{name} × {cores}" for name, cores in CORES.items()), "cores in all"], rows)


def _cores(inputs: Inputs, rate: float) -> int:
    return sum(replicas(inputs, name, rate) * cores for name, cores in CORES.items())


def _index(inputs: Inputs) -> str:
    rows = [
        [
            f"{items:,}",
            f"{index_bytes(inputs, items) / 2**30:,.0f}",
            f"{segments(inputs, items):,}",
            f"{memory_nodes(inputs, items):,}",
        ]
        for items in ITEMS
    ]
    return _table(["items", "index, GiB", "segments", "query nodes that hold it once"], rows)


def _nodes(inputs: Inputs) -> str:
    rows = [[f"{rate:,}", *(f"{nodes(inputs, items, rate):,}" for items in ITEMS)] for rate in RATES]
    return _table(["searches/s", *(f"{items:,} items" for items in ITEMS)], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="?", type=Path, help="build/bench/mesh.json")
    given = parser.parse_args()
    known = measured(INPUTS, json.loads(given.figures.read_text())) if given.figures else INPUTS
    sys.stdout.write(tables(known) + "\n")
