"""What was done with items, from the counters that the journal keeps."""

from collections.abc import Sequence

from sqlalchemy import Double, Integer, SmallInteger, column, func, select, values

from services.user_events.cache import Cache
from services.user_events.database import Database
from services.user_events.events import MICROS_PER_HOUR, EventType
from services.user_events.popularity import HOURS_A_DAY, ItemStats, click_through_rate, decayed_weights
from services.user_events.schema import counters

MOST_POPULAR = 1_000

_FIELDS = {
    EventType.IMPRESSION: "impressions",
    EventType.VIEW: "views",
    EventType.CLICK: "clicks",
    EventType.ADD_TO_CART: "carts",
    EventType.PURCHASE: "purchases",
}


class Counts:
    """Sums over counters. `cache_s` and `half_life_days` as in the settings."""

    def __init__(self, database: Database, cache_s: float, half_life_days: float) -> None:
        self._database = database
        self._half_life_days = half_life_days
        self._averages = Cache[float](cache_s)
        self._popular = Cache[Sequence[tuple[str, float]]](cache_s)

    async def stats(self, item_ids: Sequence[str], window_hours: int, now: int) -> list[ItemStats]:
        """What was done with each of `item_ids` in the last `window_hours`; `now` in microseconds since 1970."""
        average = await self._averages.get(window_hours, lambda: self._average(window_hours, now))
        query = (
            select(counters.c.item_id, counters.c.type, func.sum(counters.c.count))
            .where(
                counters.c.item_id.in_(set(item_ids)),
                counters.c.hour >= _first_hour(window_hours, now),
                counters.c.type.in_(sorted(_FIELDS)),
            )
            .group_by(counters.c.item_id, counters.c.type)
        )
        counted: dict[str, dict[str, int]] = {}
        async with self._database.reading() as connection:
            for item_id, kind, count in await connection.execute(query):
                counted.setdefault(item_id, {})[_FIELDS[EventType(kind)]] = int(count)
        return [_stats(item_id, counted.get(item_id, {}), average) for item_id in item_ids]

    async def popular(self, window_hours: int, limit: int, now: int) -> Sequence[tuple[str, float]]:
        """Up to `limit` items and their scores, the most popular of the last `window_hours` first."""
        return (await self._popular.get(window_hours, lambda: self._most_popular(window_hours, now)))[:limit]

    async def close(self) -> None:
        """Ends what is being counted."""
        await self._averages.close()
        await self._popular.close()

    async def _average(self, window_hours: int, now: int) -> float:
        """The shop's click-through rate, 0 to 1."""
        query = (
            select(counters.c.type, func.sum(counters.c.count))
            .where(
                counters.c.hour >= _first_hour(window_hours, now),
                counters.c.type.in_([EventType.IMPRESSION, EventType.CLICK]),
            )
            .group_by(counters.c.type)
        )
        async with self._database.summing() as connection:
            counted = {kind: int(count) for kind, count in await connection.execute(query)}
        shown = counted.get(EventType.IMPRESSION, 0)
        return min(1.0, counted.get(EventType.CLICK, 0) / shown) if shown else 0.0

    async def _most_popular(self, window_hours: int, now: int) -> Sequence[tuple[str, float]]:
        # The database multiplies and adds, by a table of what an event of each type and age counts: a shop has a
        # hundred times as many counters as items.
        worth = (
            values(column("type", SmallInteger), column("age", Integer), column("factor", Double), name="worth")
            .data(list(decayed_weights(window_hours, self._half_life_days)))
            .cte()
        )
        age = (now // MICROS_PER_HOUR - counters.c.hour) // HOURS_A_DAY
        score = func.sum(counters.c.count * worth.c.factor)
        query = (
            select(counters.c.item_id, score)
            .join(worth, (worth.c.type == counters.c.type) & (worth.c.age == age))
            .where(counters.c.hour >= _first_hour(window_hours, now))
            .group_by(counters.c.item_id)
            .having(score > 0)
            .order_by(score.desc(), counters.c.item_id)
            .limit(MOST_POPULAR)
        )
        async with self._database.summing() as connection:
            return [(item_id, float(found)) for item_id, found in await connection.execute(query)]


def _first_hour(window_hours: int, now: int) -> int:
    """The hour with which the window begins: the whole of the hour that it begins in."""
    return now // MICROS_PER_HOUR - window_hours


def _stats(item_id: str, counted: dict[str, int], average: float) -> ItemStats:
    rate = click_through_rate(counted.get("clicks", 0), counted.get("impressions", 0), average)
    return ItemStats(item_id, **counted, click_through_rate=rate)
