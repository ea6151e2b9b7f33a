"""What all parts share: the model, the rounds, the bare loop, what a row is and how rows are measured."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from shared.bundles import Bundle, load_bundle
from shared.inference import BackendName, Output, open_backend, tune_interpreter
from shared.inference.tokens import TextTokenizer, Tokens
from tests.benchmarks.figures import ROOT, Figure, Goal

SIZES = (4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a row found for one of its goals."""

    value: float
    raw: dict[str, Any]
    note: str = ""
    profile: str = ""
    """Where the time went, told where the goal is missed."""


B = TypeVar("B")
"""What a part's rows are measured with."""


@dataclass(frozen=True)
class Row(Generic[B]):
    """Something to measure: one result a goal."""

    goals: tuple[Goal, ...]
    measure: Callable[[B], Awaitable[list[Measured]]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller wants of a part: three rounds of shorter loads, what takes too long for every time, one row."""

    quick: bool = False
    full: bool = False
    only: str | None = None


async def figures_of(rows: Mapping[str, Row[B]], bench: B, only: str | None) -> list[Figure]:
    """Every row, or the one called `only`. A row that cannot be measured says why, and stops no other."""
    figures: list[Figure] = []
    for name, row in rows.items():
        if only is not None and name != only:
            continue
        try:
            found = await row.measure(bench)
        except Exception as error:
            reason = str(error) or type(error).__name__
            figures += [Figure(goal, None, note=f"not measured: {reason}") for goal in row.goals]
            continue
        for goal, one in zip(row.goals, found, strict=True):
            figure = Figure(goal, one.value, one.raw, one.note)
            if not figure.met and one.profile:
                figure = Figure(goal, one.value, one.raw, f"{one.note}. {one.profile}")
            figures.append(figure)
    return figures


class Bench:
    """`rounds` of each thing, `seconds` of each load; with `full`, what takes too long for every time, too."""

    def __init__(self, quick: bool, full: bool = False) -> None:
        self.quick = quick
        self.full = full
        self.rounds = 3 if quick else 5
        self.seconds = 2.0 if quick else 4.0
        self.bundle: Bundle = load_bundle(ROOT / "build" / "models" / "minilm")
        manifest = self.bundle.manifest
        self.queries = TextTokenizer(self.bundle.tokenizer_path, manifest.max_query_tokens, manifest.prompts.query)
        self.items = TextTokenizer(self.bundle.tokenizer_path, manifest.max_item_tokens, manifest.prompts.item)
        tune_interpreter()

    def backend(self, output: Output = Output.SENTENCE, *, latency: bool = False) -> Any:
        """The int8 graph, as the services run it."""
        return open_backend(BackendName.ONNX_INT8, self.bundle, output=output, latency=latency)


def forward(backend: Any, rows: Sequence[Tokens], size: int) -> list[Any]:
    """`rows` in their order, padded, in batches of `size`."""
    results: list[Any] = []
    for at in range(0, len(rows), size):
        prepared = backend.prepare(rows[at : at + size])
        results += backend.finish(prepared, backend.run(prepared))
    return results


async def best_size(backend: Any, rows: Sequence[Tokens], sizes: Sequence[int] = SIZES) -> int:
    """The batch size that takes `rows` fastest: of three turns each, since one stray moment would choose otherwise."""
    timings: dict[int, list[float]] = {size: [] for size in sizes}
    await asyncio.to_thread(forward, backend, rows[: max(sizes)], max(sizes))
    for _ in range(3):
        for size, taken in timings.items():
            started = time.perf_counter()
            await asyncio.to_thread(forward, backend, rows, size)
            taken.append(time.perf_counter() - started)
    return min(sizes, key=lambda size: statistics.median(timings[size]))


async def rate(work: int, done: Awaitable[Any]) -> float:
    """`work` a second."""
    started = time.perf_counter()
    await done
    return work / (time.perf_counter() - started)
