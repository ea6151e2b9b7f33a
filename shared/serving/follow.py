"""A service follows its registry's channel: another version there is loaded beside the one that answers, warmed up,
and put in its place. Whatever goes wrong on the way leaves the old one answering."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Generic

import structlog

from shared.bundles import Bundle, BundleKind, ChannelName, Registry, load_bundle
from shared.errors import AisleError
from shared.inference import tune_interpreter
from shared.rpc.server import StartupError
from shared.serving.settings import ModelServiceSettings
from shared.serving.switch import ModelT, Switch
from shared.telemetry import metrics

_log = structlog.get_logger()

Open = Callable[[Bundle], Awaitable[ModelT]]
"""Loads a verified bundle off the event loop, starts and warms it. Raises `StartupError` or `AisleError`."""

_MOST_PATIENCE = 32
"""A version that cannot be loaded is tried again after 2, 4, … looks, at most so many: loading costs what it costs
though nothing comes of it."""


async def open_model(
    settings: ModelServiceSettings, stack: AsyncExitStack, open_: Open[ModelT], kind: BundleKind | None = None
) -> Switch[ModelT]:
    """The model that `settings` name, of `kind` where one is given; followed where they name a registry's channel.

    Raises `StartupError` or `BundleError` saying what to change where the bundle or the device will not do.
    """
    tune_interpreter()
    cache = Path(settings.bundle_cache)
    bundle = await asyncio.to_thread(load_bundle, settings.bundle, kind=kind, cache=cache)
    switch = Switch(await open_(bundle))
    stack.push_async_callback(switch.close)
    if channel := ChannelName.parse(settings.bundle):
        metrics.ENGINE_SWITCHES.labels("switched")
        metrics.ENGINE_SWITCHES.labels("failed")
        follower = Follower(channel, switch, open_, kind=kind, cache=cache)
        following = asyncio.create_task(follower.run(settings.bundle_poll_s), name="follow-channel")
        stack.push_async_callback(_end, following)
    return switch


class Follower(Generic[ModelT]):
    """Brings `switch` to where `channel` points."""

    def __init__(
        self, channel: ChannelName, switch: Switch[ModelT], open_: Open[ModelT], *, kind: BundleKind | None, cache: Path
    ) -> None:
        self._channel = channel
        self._switch = switch
        self._open = open_
        self._kind = kind
        self._cache = cache
        self._failing = ""
        """The version that could not be loaded, so many times; it is left alone for so many looks."""
        self._failures = self._rest = 0
        self._told = ""

    async def run(self, poll_s: float) -> None:
        """Looks again and again until cancelled."""
        while True:
            await asyncio.sleep(poll_s)
            try:
                await self.look()
            except Exception as error:
                # Whatever this is: a service that silently stopped following would be found out too late.
                self._failed(error)

    async def look(self) -> bool:
        """Looks once; whether another version answers now."""
        before = self._switch.now.bundle.version
        try:
            version = await asyncio.to_thread(self._channel.version)
        except Exception as error:
            self._failed(error)
            return False
        if version == before:
            self._failing, self._told = "", ""
            return False
        if version == self._failing and self._rest:
            self._rest -= 1
            return False
        try:
            _log.info("loading the channel's new version", version=version)
            model = await self._open(await asyncio.to_thread(self._load, version))
        except Exception as error:
            self._failures = self._failures + 1 if version == self._failing else 1
            self._failing = version
            self._rest = min(2**self._failures, _MOST_PATIENCE) - 1
            self._failed(error)
            return False
        self._failing, self._told = "", ""
        metrics.ENGINE_SWITCHES.labels("switched").inc()
        _log.info("switched", version=version, before=before)
        await self._switch.replace(model)
        return True

    def _load(self, version: str) -> Bundle:
        folder = Registry(self._channel.location).local(version, self._cache)
        return load_bundle(folder, kind=self._kind)

    def _failed(self, error: Exception) -> None:
        metrics.ENGINE_SWITCHES.labels("failed").inc()
        expected = isinstance(error, (AisleError, StartupError))
        why = str(error) if expected else type(error).__name__
        # Told once: a channel that stays broken would fill the log.
        if why != self._told:
            self._told = why
            _log.error(
                "the channel's version is not loaded; the one before goes on answering",
                why=why,
                version=self._switch.now.bundle.version,
                exc_info=None if expected else error,
            )


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
