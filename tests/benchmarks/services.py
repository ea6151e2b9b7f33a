"""Aisle's services as processes on free ports, and where their time went."""

import asyncio
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from deploy.local import client
from deploy.local.spec import KINDS, free_ports
from tests.benchmarks.processes import started, until_ready

START_S = 60.0

Measure = Callable[[], Awaitable[float]]


class Service:
    """One that serves."""

    def __init__(self, pid: int, address: str, metrics_url: str) -> None:
        self.pid = pid
        self.address = address
        self._metrics_url = metrics_url
        self._before = self._engine()
        self._seconds = 0.0

    def watched(self, measure: Measure) -> Measure:
        """`measure`, with the time it took known to `profile`."""

        async def timed() -> float:
            started_at = asyncio.get_running_loop().time()
            result = await measure()
            self._seconds += asyncio.get_running_loop().time() - started_at
            return result

        return timed

    def profile(self) -> dict[str, float]:
        """Where the engine's time went since the start, by its own metrics."""
        now = self._engine()
        spent = {name: value - self._before.get(name, 0.0) for name, value in now.items()}
        passes = max(spent.get("forward_seconds_count", 0.0), 1.0)
        rows = max(spent.get("queue_seconds_count", 0.0), 1.0)
        return {
            "forward_share": round(spent.get("forward_seconds_sum", 0.0) / max(self._seconds, 1e-9), 3),
            "forward_ms": round(spent.get("forward_seconds_sum", 0.0) / passes * 1000, 2),
            "queue_ms": round(spent.get("queue_seconds_sum", 0.0) / rows * 1000, 2),
            "rows_a_batch": round(spent.get("batch_items_sum", 0.0) / passes, 1),
            "tokens_a_batch": round(spent.get("tokens_total", 0.0) / passes, 1),
        }

    def buckets(self, histogram: str, **labels: str) -> Counter[float]:
        """What one of its histograms has counted up to each bound since the start, in seconds."""
        found: Counter[float] = Counter()
        for sample in self._samples():
            if sample.name == f"{histogram}_bucket" and labels.items() <= sample.labels.items():
                bound = float(sample.labels["le"])
                found[bound] += int(sample.value)
        return found

    def _samples(self) -> Iterator[Sample]:
        with urllib.request.urlopen(self._metrics_url, timeout=5) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            yield from family.samples

    def _engine(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for sample in self._samples():
            if sample.name.startswith("aisle_engine_") and "le" not in sample.labels:
                name = sample.name.removeprefix("aisle_engine_")
                found[name] = found.get(name, 0.0) + sample.value
        return found


def within_ms(buckets: Mapping[float, float], share: float) -> float:
    """The milliseconds within which `share` of a histogram's observations lie, as Prometheus's `histogram_quantile`
    says it: evenly spread in their bucket. `nan` where there are none."""
    rank, below, at = share * max(buckets.values(), default=0), 0.0, 0.0
    for bound in sorted(buckets):
        if rank and buckets[bound] >= rank:
            among = buckets[bound] - below
            return 1000 * (at if bound == float("inf") else at + (bound - at) * (rank - below) / among)
        below, at = buckets[bound], bound
    return float("nan")


def told(profile: dict[str, float]) -> str:
    """A profile in words."""
    return (
        f"forward passes ran {profile['forward_share']:.0%} of the time, {profile['forward_ms']:g} ms and "
        f"{profile['rows_a_batch']:g} rows ({profile['tokens_a_batch']:g} tokens) each; rows waited "
        f"{profile['queue_ms']:g} ms"
    )


@asynccontextmanager
async def service(
    name: str, *flags: str, log: str = "", env: Mapping[str, str] | None = None
) -> AsyncIterator[Service]:
    """`services.<name>`, serving. `log` tells two of one name apart."""
    port, metrics = free_ports(2)
    kind = next(kind for kind in KINDS if kind.name == name)
    command = [sys.executable, "-m", f"services.{name}", "--port", str(port), "--metrics-port", str(metrics), *flags]

    async def serving() -> bool:
        return await asyncio.to_thread(client.health, f"127.0.0.1:{port}", kind.health) == "SERVING"

    async with started(log or name, command, env) as process:
        await until_ready(log or name, process, serving, START_S)
        yield Service(process.pid, f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/metrics")
