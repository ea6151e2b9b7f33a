"""What goes with items: read from what the `relations` job learned."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from services.user_events.database import Database
from services.user_events.schema import relation_generations, relations


@dataclass(frozen=True, slots=True)
class Related:
    """Items and how strongly they go with those asked about, the strongest first. `learned_at` is in microseconds
    since 1970, `None` before the first run of the job."""

    items: Sequence[tuple[str, float]]
    learned_at: int | None


class Relations:
    """The newest generation of relations, whichever it is at each call."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def related(self, weights: Mapping[str, float], limit: int) -> Related:
        """Up to `limit` items by the sum of weight × relation over the items of `weights`."""
        newest = select(func.max(relation_generations.c.learned_at)).scalar_subquery()
        # One statement, so that a generation which takes over meanwhile is seen as a whole or not at all. A generation
        # without a row of these items still says when it was learned.
        query = (
            select(relation_generations.c.learned_at, relations.c.item_id, relations.c.neighbours)
            .outerjoin(
                relations,
                (relations.c.learned_at == relation_generations.c.learned_at) & relations.c.item_id.in_(weights),
            )
            .where(relation_generations.c.learned_at == newest)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        scores: defaultdict[str, float] = defaultdict(float)
        for _, item_id, neighbours in rows:
            if item_id is not None:
                for other, relation in json.loads(neighbours):
                    scores[other] += weights[item_id] * relation
        found = ((item_id, score) for item_id, score in scores.items() if score > 0)
        best = sorted(found, key=lambda scored: (-scored[1], scored[0]))[:limit]
        return Related(best, rows[0][0] if rows else None)
