"""What the local commands print."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from aisle.catalog.v1 import item_pb2
from aisle.gateway.v1 import gateway_pb2
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from deploy.local import client
from deploy.local.ingest import Observe
from deploy.local.ingest import Progress as Import
from deploy.local.state import Running, State

__all__ = ["console", "import_progress", "import_summary", "results", "status"]

_PIPE_WIDTH = 140
"""Columns of what is printed into a file or a pipe, where nobody says."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)

_REASONS_SHOWN = 10
_VERSION_CHARS = 12
_ID_CHARS = 24
"""Of an id; a longer one is cut, so that titles have room."""
_NANOS = 1_000_000_000


class Answer(Protocol):
    """A response of the gateway."""

    @property
    def results(self) -> Sequence[gateway_pb2.SearchResult]:
        """Best first."""

    @property
    def info(self) -> gateway_pb2.ResponseInfo:
        """How it was answered."""


def results(title: str, answer: Answer, waited_ms: float) -> None:
    """One answer as a table, and under it how it came about."""
    table = Table(
        title=escape(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1)
    )
    rows = [
        (str(rank), hit.item.id, hit.item.title, price(hit.item), f"{hit.score:.3f}", origin(hit.breakdown))
        for rank, hit in enumerate(answer.results, start=1)
    ]
    table.expand = True
    for column, name in enumerate(("#", "id", "title", "price", "score", "from")):
        if name == "title":
            # Alone in giving way on a narrow terminal.
            table.add_column(name, overflow="ellipsis", no_wrap=True, ratio=1)
            continue
        width = max(len(name), *(len(row[column]) for row in rows), 0)
        numeric = name in {"#", "price", "score"}
        width = min(width, _ID_CHARS) if name == "id" else width
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True, width=width)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table if answer.results else f"[bold]{escape(title)}[/bold]\n  nothing was found")
    for line in _footnotes(answer.info, waited_ms):
        console.print(f"  {line}", style="dim")
    for reason in answer.info.degraded:
        name = gateway_pb2.DegradedReason.Name(reason.reason).removeprefix("DEGRADED_REASON_")
        console.print(f"  degraded: {name}: {reason.message}", style="yellow", markup=False)
    console.print()


def _footnotes(info: gateway_pb2.ResponseInfo, waited_ms: float) -> Iterator[str]:
    yield "from: v place by vector, w by words, r re-ranker, t taken together, p popular, u added by the user's history"
    stages = " · ".join(f"{timing.stage} {timing.milliseconds:.1f}" for timing in info.timings)
    yield f"ms: {stages} · seen from here {waited_ms:.1f}"
    versions = info.model_versions
    models = [
        f"{role} {version[:_VERSION_CHARS]}"
        for role, version in (
            ("query encoder", versions.query_encoder),
            ("index", versions.index),
            ("re-ranker", versions.reranker),
        )
        if version
    ]
    yield f"models: {' · '.join(models) or 'none'} · {info.candidate_count} candidates"


def price(item: item_pb2.Item) -> str:
    """`USD 19.99`; empty when not known."""
    if not item.HasField("price"):
        return ""
    return f"{item.price.currency_code} {item.price.units + item.price.nanos / _NANOS:,.2f}"


def origin(breakdown: gateway_pb2.ScoreBreakdown) -> str:
    """Where a score came from: its place by vector (v) and by words (w), what the re-ranker gave it (r), how much it
    was taken together with others (t) and taken at all (p), and what the user's history added (u)."""
    parts = []
    if breakdown.HasField("dense_rank"):
        parts.append(f"v{breakdown.dense_rank}")
    if breakdown.HasField("lexical_rank"):
        parts.append(f"w{breakdown.lexical_rank}")
    if breakdown.HasField("rerank_score"):
        parts.append(f"r{breakdown.rerank_score:.2f}")
    if breakdown.HasField("related_score"):
        parts.append(f"t{breakdown.related_score:.2f}")
    if breakdown.HasField("popularity_score"):
        parts.append(f"p{breakdown.popularity_score:.2f}")
    if breakdown.HasField("personalization"):
        parts.append(f"u{breakdown.personalization:+.2f}")
    return " ".join(parts)


@contextmanager
def import_progress() -> Iterator[Observe]:
    """A bar with items a second and the time that is left; above it, the first row refused for each reason."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[items]:,} items"),
        TextColumn("{task.fields[rejected]:,} rejected"),
        TextColumn("{task.fields[speed]:,.0f} items/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    told: set[str] = set()
    passing = False
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("ingest", total=1.0, items=0, rejected=0, speed=0.0)

        def observe(progress: Import) -> None:
            nonlocal passing
            if passing and not progress.passing:
                # The pace at which rows are passed over says nothing about the time that is left.
                bar.reset(task)
            passing = progress.passing
            for why, reason in list(progress.done.rejections.reasons.items())[:_REASONS_SHOWN]:
                if why not in told:
                    told.add(why)
                    bar.console.print(f"  rejected: {reason.examples[0]}: {why}", style="yellow", markup=False)
            bar.update(
                task,
                description="skip" if passing else "ingest",
                completed=progress.fraction,
                items=progress.done.accepted,
                rejected=progress.done.rejections.total,
                speed=progress.items_per_s,
            )

        yield observe


def import_summary(progress: Import, path: Path) -> None:
    """What came of an import that went to its end, and what to do about the rows that are not in."""
    say = partial(console.print, soft_wrap=True, markup=False)
    done = progress.done
    earlier = f", {progress.before:,} of them by an earlier run" if progress.before else ""
    pace = f"{progress.seconds:.1f} s, {progress.items_per_s:,.0f} items/s"
    say(f"{done.accepted:,} rows are in the index{earlier} ({pace})")
    rejected = done.rejections.total
    if not rejected:
        return
    say(f"{rejected:,} {'row was' if rejected == 1 else 'rows were'} rejected:", style="yellow")
    for line in done.rejections.lines():
        say(f"  {line}")
    say(
        f"mend them in {path.name}, or say how its columns are read (MAPPING=…), and load it again: items that are in "
        f"are only replaced. How they are read now: python -m shared.catalogue check {path}"
    )


def status(known: State) -> bool:
    """The mesh as a table. Returns whether everything serves."""
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("service", min_width=16, no_wrap=True)
    table.add_column("pid", width=7, justify="right")
    table.add_column("address", width=15, no_wrap=True)
    table.add_column("health", width=11, no_wrap=True)
    table.add_column("up", width=7, no_wrap=True)
    table.add_column("items", width=7, justify="right")
    table.add_column("model", overflow="ellipsis", no_wrap=True, ratio=1)
    serving = True
    for service in known.services:
        health = _health(service)
        serving = serving and health == "SERVING"
        facts = client.facts(service.kind.name, service.address) if service.process.runs() else client.Facts()
        table.add_row(
            service.name,
            str(service.process.pid),
            service.address,
            f"[{'green' if health == 'SERVING' else 'red'}]{health}[/]",
            _duration(time.time() - service.started_at) if service.process.runs() else "",
            "" if facts.items is None else f"{facts.items:,}",
            facts.model,
        )
    console.print(table)
    console.print(f"index: {known.index}", style="dim", soft_wrap=True)
    console.print(f"logs:  {Path(known.services[0].log).parent}", style="dim", soft_wrap=True)
    return serving


def _health(service: Running) -> str:
    if not service.process.runs():
        return "not running"
    return client.health_of(service)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"
