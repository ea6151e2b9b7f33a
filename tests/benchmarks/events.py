"""Part "events": events made durable a second, histories read from a long log, and what is recommended from them.

Nobody has set a goal for these: they are here to be compared with the next run on the same machine.
"""

import asyncio
import contextlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from services.user_events import schema_version
from services.user_events.database import Database
from services.user_events.intake import Admitted
from services.user_events.settings import DatabaseSettings, UserEventsSettings
from services.user_events.store import Store
from services.user_events.wire import event_from_proto
from tests.benchmarks import event_load, shoppers
from tests.benchmarks.bench import Measured, Options, Row, figures_of
from tests.benchmarks.figures import Figure, Goal
from tests.benchmarks.meshes import ITEMS, Meshes
from tests.benchmarks.services import service
from tests.support.postgres import PostgresServer, bin_folder

WRITERS = 16
BATCHES = (1, 100)
HISTORY_EVENTS = 100
LOGGED = 1_000_000
_LOGGED_QUICK = 50_000
_GROUP = 1_000
_SYNCS = 50

HOMES = ("SQLite", "PostgreSQL")


class Databases:
    """Both databases, in folders that end with the benchmark."""

    def __init__(self, quick: bool, stack: contextlib.AsyncExitStack) -> None:
        self.quick = quick
        self.rounds = 3 if quick else 5
        self.seconds = 2.0 if quick else 5.0
        self.logged = _LOGGED_QUICK if quick else LOGGED
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aisle-events-")))
        self._stack = stack
        self._server: PostgresServer | None = None
        self._files = 0

    async def new(self, home: str) -> str:
        """The address of an empty database with tables."""
        if home == "SQLite":
            self._files += 1
            uri = str(self._folder / f"{self._files}.db")
        else:
            uri = await asyncio.to_thread(self._postgres().new_database)
        database = Database(DatabaseSettings(uri=uri))
        await schema_version.upgrade(database)
        await database.close()
        return uri

    def sync_ms(self) -> float:
        """What the disk takes to make 4 KiB durable, median: below it no transaction gets."""
        taken = []
        with (self._folder / "sync").open("wb", buffering=0) as file:
            for _ in range(_SYNCS):
                file.write(os.urandom(4096))
                started = time.perf_counter()
                os.fdatasync(file.fileno())
                taken.append(time.perf_counter() - started)
        return statistics.median(taken) * 1000

    def _postgres(self) -> PostgresServer:
        if self._server is None:
            if bin_folder() is None:
                raise LookupError("no PostgreSQL on this machine: apt-get install postgresql")
            self._server = PostgresServer()
            self._stack.callback(self._server.close)
            self._server.start()
        return self._server


@asynccontextmanager
async def _serving(uri: str, home: str) -> AsyncIterator[str]:
    flags = ("--uri", uri, "--relations-every-s", "0")
    async with service("user_events", *flags, log=f"user_events-{home.lower()}") as served:
        yield served.address


async def writes(bench: Databases, home: str) -> list[Measured]:
    """Events a second that are durable when their caller hears of it, in batches of each size."""
    found = []
    async with _serving(await bench.new(home), home) as address:
        for batch in BATCHES:
            runs = []
            for _ in range(bench.rounds):
                load = event_load.measured(address, "write", batch, callers=WRITERS, seconds=bench.seconds)
                runs.append({**await load, "sync_ms": await asyncio.to_thread(bench.sync_ms)})
            rate = statistics.median(run["done_per_s"] for run in runs)
            note = (
                f"each call {statistics.median(run['p50_ms'] for run in runs):.1f} ms (p50), "
                f"{statistics.median(run['p99_ms'] for run in runs):.1f} ms (p99); the disk takes "
                f"{statistics.median(run['sync_ms'] for run in runs):.1f} ms to sync"
            )
            found.append(Measured(rate, {"runs": runs, "load_average": os.getloadavg()}, note))
    return found


async def history(bench: Databases, home: str) -> list[Measured]:
    """The latest events of some user, out of a long log; one caller at a time."""
    uri = await bench.new(home)
    load_s = await _filled(uri, bench.logged)
    async with _serving(uri, home) as address:
        runs = [
            await event_load.measured(address, "read", HISTORY_EVENTS, callers=1, seconds=bench.seconds)
            for _ in range(bench.rounds)
        ]
    raw = {"runs": runs, "events": bench.logged, "load_s": load_s, "load_average": os.getloadavg()}
    length = statistics.median(run["done_per_s"] / run["requests_per_s"] for run in runs)
    note = (
        f"{bench.logged:,} events of {event_load.USERS:,} users, written in {load_s:.0f} s; "
        f"a history has {length:.0f} events on average"
    )
    return [Measured(statistics.median(run[figure] for run in runs), raw, note) for figure in ("p50_ms", "p99_ms")]


async def _filled(uri: str, count: int) -> float:
    """Writes `count` events as the service does, but for the wire; returns the seconds it took."""
    rng = random.Random(0)
    store = await Store.open(UserEventsSettings(uri=uri, write_timeout_s=60))
    started = time.perf_counter()
    try:
        for _ in range(count // _GROUP):
            looked_at = [store.admit(event_from_proto(event_load.event(rng))) for _ in range(_GROUP)]
            await store.write([one for one in looked_at if isinstance(one, Admitted)])
    finally:
        await store.close()
    return time.perf_counter() - started


async def recommendations(bench: Databases) -> list[Measured]:
    """For the home page of shoppers with a history, one at a time, through a whole mesh."""
    async with contextlib.AsyncExitStack() as stack:
        meshes = Meshes(bench.quick, stack)
        mesh = await meshes.mesh()
        await shoppers.arrive(mesh.mesh.address("user_events"), [item.id for item in meshes.shop])
        runs = [await mesh.loads.of("recommend") for _ in range(bench.rounds)]
    stages = {name: statistics.median(run["stages_p50_ms"][name] for run in runs) for name in runs[0]["stages_p50_ms"]}
    note = f"{ITEMS:,} items, {shoppers.EVENTS} events a shopper, SQLite; p50 by stage, in ms: " + ", ".join(
        f"{name} {taken:.1f}" for name, taken in stages.items()
    )
    raw = {"runs": runs, "load_average": os.getloadavg()}
    return [Measured(statistics.median(run[what] for run in runs), raw, note) for what in ("p50_ms", "p99_ms")]


def _rate(home: str, batch: int) -> Goal:
    return Goal(f"durable events/s, {home}, {WRITERS} writers, batches of {batch}", None, unit="events/s")


def _read(home: str, figure: str) -> Goal:
    return Goal(f"history read {figure}, {home}, {LOGGED:,} events", None, "lower", "ms")


ROWS: dict[str, Row[Databases]] = {
    **{f"write-{h.lower()}": Row(tuple(_rate(h, b) for b in BATCHES), partial(writes, home=h)) for h in HOMES},
    **{f"history-{h.lower()}": Row((_read(h, "p50"), _read(h, "p99")), partial(history, home=h)) for h in HOMES},
    "recommend": Row(
        tuple(Goal(f"Recommend {figure}, one caller", None, "lower", "ms") for figure in ("p50", "p99")),
        recommendations,
    ),
}


async def run(options: Options) -> list[Figure]:
    """All rows, or the one wanted."""
    async with contextlib.AsyncExitStack() as stack:
        return await figures_of(ROWS, Databases(options.quick, stack), options.only)
