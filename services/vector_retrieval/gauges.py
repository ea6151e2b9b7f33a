"""What the index holds, as gauges: told by looking now and then, because other replicas write and promote too."""

import asyncio
import contextlib
from typing import NoReturn

import structlog

from services.vector_retrieval.generations import Generation, Roles
from services.vector_retrieval.milvus import MissingCollectionError
from services.vector_retrieval.store import Store
from shared.errors import AisleError
from shared.telemetry import metrics

_log = structlog.get_logger()

_EVERY_S = 15.0
"""Prometheus's usual interval; counting a large index costs the store some milliseconds."""


class IndexGauges:
    """Keeps generations and their items told."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._task: asyncio.Task[NoReturn] | None = None

    def start(self) -> None:
        """Looks from now on."""
        self._task = asyncio.create_task(self._keep_looking(), name="index-gauges")

    async def close(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> None:
        """Counts, and tells. Raises what the store raises; what was told before stands then."""
        listed, roles = await self._store.list_generations()
        metrics.GENERATION_INFO.clear()
        metrics.GENERATION_ITEMS.clear()
        items = {generation.name: count for generation, count in listed}
        # Told when a generation is verified, by whoever verifies it; dropped it may be by another replica.
        for sample in [sample for metric in metrics.GENERATION_RECALL.collect() for sample in metric.samples]:
            if sample.labels["generation"] not in items:
                metrics.GENERATION_RECALL.remove(sample.labels["generation"])
        for role, generation in _named(roles):
            metrics.GENERATION_INFO.labels(generation.name, generation.model_version, role).set(1)
            metrics.GENERATION_ITEMS.labels(generation.name).set(items.get(generation.name, 0))

    async def _keep_looking(self) -> NoReturn:
        while True:
            try:
                await self.look()
            except (AisleError, MissingCollectionError) as error:
                _log.debug("index not counted", why=str(error))
            await asyncio.sleep(_EVERY_S)


def _named(roles: Roles) -> list[tuple[str, Generation]]:
    told = (("live", roles.live), ("building", roles.building), ("previous", roles.previous))
    return [(role, generation) for role, generation in told if generation is not None]
