"""What was shown to whom, told to the log beside the answer: no caller waits for it, and no caller is failed by it.

Clicks alone cannot train a model: an item nobody clicked was either passed over or never seen, and only impressions,
with their positions, tell which (Joachims et al. 2017, "Unbiased learning-to-rank with biased feedback").
"""

import asyncio
import random
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import structlog

from services.gateway.ports import Impression, UserEventsPort
from shared.errors import AisleError
from shared.telemetry import metrics

_log = structlog.get_logger()

_BATCH = 200
"""Events written at once, at most. The log takes 1,000, in a request of 4 MiB: that holds nearly 250 pages of the
largest kind, 100 items with the longest ids."""


class Impressions:
    """Tells `events` of one in `sample_one_in` pages; 0 means of none.

    They are told every `every_s` seconds; where so many wait that batches are full, one batch after the other. At most
    `waiting` pages wait. What is over that, or cannot be told, is counted and dropped: an impression was never promised
    to anybody.
    """

    def __init__(
        self,
        events: UserEventsPort,
        *,
        sample_one_in: int,
        waiting: int,
        every_s: float,
        timeout_s: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._events = events
        self._one_in = sample_one_in
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._chance = chance
        self._waiting: deque[Impression] = deque()
        self._most = waiting
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        for reason in ("buffer_full", "log_unavailable", "refused"):
            metrics.IMPRESSIONS_DROPPED.labels(reason)

    def shown(self, user_id: str, item_ids: list[str], first_position: int, token: str) -> None:
        """Notes a page of `item_ids` for `user_id`; of nobody, and of nothing, there is nothing to note."""
        if not (user_id and item_ids and self._one_in) or self._chance() * self._one_in >= 1:
            return
        if len(self._waiting) >= self._most:
            metrics.IMPRESSIONS_DROPPED.labels("buffer_full").inc()
            return
        self._waiting.append(
            Impression(
                id=uuid.uuid4().hex,
                user_id=user_id,
                item_ids=item_ids,
                first_position=first_position,
                attribution_token=token,
                sampled_one_in=self._one_in,
            )
        )
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._tell())

    async def close(self) -> None:
        """Tells what waits and ends; a log that does not take it is not asked again."""
        self._closing.set()
        if self._task is not None:
            await self._task

    async def _tell(self) -> None:
        told = True
        while self._waiting:
            # A log that did not take a batch is left alone before the next.
            if not told or len(self._waiting) < _BATCH:
                await self._pause()
            told = await self._write()
            if self._closing.is_set() and not told:
                metrics.IMPRESSIONS_DROPPED.labels("log_unavailable").inc(len(self._waiting))
                self._waiting.clear()

    async def _pause(self) -> None:
        """Returns after `every_s` seconds, or at once where this is being closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._every_s):
                await self._closing.wait()

    async def _write(self) -> bool:
        """Whether the log took a batch."""
        batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        try:
            refused = await self._events.write(batch, timeout_s=self._timeout_s)
        except AisleError as error:
            _log.debug("impressions not told", why=error.message)
            metrics.IMPRESSIONS_DROPPED.labels("log_unavailable").inc(len(batch))
            return False
        metrics.IMPRESSIONS_DROPPED.labels("refused").inc(len(refused))
        return True
