"""What the service does by itself, now and then: deletes what is too old, empties SQLite's log, has the relations
learned."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable

import structlog
from pydantic import SecretStr

from services.user_events.database import Database
from services.user_events.retention import Retention
from services.user_events.settings import RelationsSettings, UserEventsSettings
from services.user_events.store import now_micros
from shared.errors import AisleError

_log = structlog.get_logger()

_DAY_S = 86_400.0
_EMPTY_EVERY_S = 60.0
"""Seconds that deleted events stay in SQLite's log at most, where a read or a kill kept it from being emptied."""
_FIRST_AFTER_S = 30.0
"""Seconds from the start: a service that has just come up has better things to do."""
_END_S = 5.0


class Background:
    """Runs until it is closed. A run that fails is logged, and tried again when its time has come."""

    def __init__(self, database: Database, settings: UserEventsSettings) -> None:
        self._settings = settings
        self._database = database
        self._retention = Retention(database, settings.retention_days)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins."""
        self._tasks.append(asyncio.create_task(_repeat(self._delete, _DAY_S)))
        if not self._settings.is_server:
            self._tasks.append(asyncio.create_task(_repeat(self._empty_log, _EMPTY_EVERY_S)))
        if self._settings.relations_every_s:
            self._tasks.append(asyncio.create_task(_repeat(self._learn, self._settings.relations_every_s)))

    async def close(self) -> None:
        """Ends, and what it started."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _delete(self) -> None:
        deleted = await self._retention.run(now_micros())
        if deleted:
            _log.info("old events deleted", events=deleted)

    async def _empty_log(self) -> None:
        if not await self._database.empty_log():
            _log.warning("SQLite's log is being read and not emptied yet: it may hold events that were deleted")

    async def _learn(self) -> None:
        # A process of its own: it takes seconds of a core and hundreds of megabytes, and gives them back.
        job = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.user_events.relations",
            env={**os.environ, **_environment(self._settings)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            told, failed = await job.communicate()
        finally:
            await _end(job)
        if job.returncode == 0:
            _log.info("relations job", told=told.decode().strip())
        else:
            lines = failed.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            _log.warning("relations job failed", code=job.returncode, why=lines[-1])


def _environment(settings: UserEventsSettings) -> dict[str, str]:
    """What the job is told: as environment, which others on the machine cannot see."""
    told = {name: getattr(settings, name) for name in RelationsSettings.model_fields}
    told["unless_younger_s"] = settings.relations_every_s / 2
    return {
        # Searches and writes run on the same cores.
        "OPENBLAS_NUM_THREADS": "1",
        **{
            f"AISLE_USER_EVENTS_{name.upper()}": str(
                value.get_secret_value() if isinstance(value, SecretStr) else value
            )
            for name, value in told.items()
        },
    }


async def _repeat(work: Callable[[], Awaitable[None]], every_s: float) -> None:
    await asyncio.sleep(min(_FIRST_AFTER_S, every_s))
    while True:
        try:
            await work()
        except AisleError as error:
            _log.warning("background work failed", why=error.message)
        except Exception as error:
            _log.error("background work failed", exc_info=error)
        await asyncio.sleep(every_s)


async def _end(job: asyncio.subprocess.Process) -> None:
    if job.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        job.terminate()
    try:
        await asyncio.wait_for(job.wait(), _END_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            job.kill()
        await job.wait()
