"""Processes that a benchmark starts: logged, waited for, and ended by their own id whatever happens."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.benchmarks.figures import LOGS, ROOT

END_S = 15.0


class StartError(Exception):
    """A process did not come up; the message says why."""


@asynccontextmanager
async def started(
    name: str, command: Sequence[str], env: Mapping[str, str] | None = None, *, cwd: Path = ROOT
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`command`, logging to `build/bench/logs/<name>.log`; ended, with all that it started, on the way out."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with log_of(name).open("wb") as out:
        # A session of its own: Ctrl-C reaches this process alone, which then ends the group in order.
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_S)
    # What it left behind in its group, or itself where it would not go.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def until_ready(
    name: str, process: asyncio.subprocess.Process, ready: Callable[[], Awaitable[bool]], within_s: float
) -> None:
    """Returns when `ready` says so; raises `StartError` with the log's last line when it ends first or takes longer."""
    until = time.monotonic() + within_s
    while not await ready():
        if process.returncode is not None:
            raise StartError(f"{name} ended with {process.returncode} while starting: {last_line(name)}")
        if time.monotonic() > until:
            raise StartError(f"{name} was not ready in {within_s:g} s: {last_line(name)}")
        await asyncio.sleep(0.2)


async def finished(name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    """Runs `command` to its end; raises `StartError` with the log's last line where it fails."""
    async with started(name, command, env) as process:
        if await process.wait():
            raise StartError(f"{name} failed: {last_line(name)}")


def log_of(name: str) -> Path:
    """Where `name` logs to."""
    return LOGS / f"{name}.log"


def last_line(name: str) -> str:
    """The last thing that `name` said."""
    lines = [line.strip() for line in log_of(name).read_text(errors="replace").splitlines() if line.strip()]
    return (lines or ["nothing was logged"])[-1][:300]
