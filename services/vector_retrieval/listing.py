"""Items of a generation page by page: all, or those that another generation lacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.vector_retrieval import schema
from services.vector_retrieval.capabilities import Capabilities
from services.vector_retrieval.generations import Generation, Generations
from services.vector_retrieval.lifecycle import Lifecycle
from services.vector_retrieval.scan import PAGE_ROWS, Scanner
from services.vector_retrieval.search import Consistency

_MOST_PAGES = 20
"""Looked through for one page of what another generation lacks: a call ends in time though little is missing."""


@dataclass(frozen=True, slots=True)
class Page:
    """Items in the order of their ids, and the id after which the next page begins: empty after the last."""

    payloads: list[bytes] = field(default_factory=list)
    after: str = ""
    looked_at: int = 0

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], after: str, looked_at: int) -> "Page":
        """A page of rows that have a payload."""
        return cls([schema.payload_of(row["payload"]) for row in rows], after, looked_at)


class Lister:
    """Lists items of one store."""

    def __init__(self, scanner: Scanner, generations: Generations, lifecycle: Lifecycle) -> None:
        self._scanner = scanner
        self._generations = generations
        self._lifecycle = lifecycle

    async def page(self, name: str, missing_from: str, size: int, after: str, can: Capabilities) -> Page:
        """Up to `size` items of the generation `name` (empty: the live one) that follow `after`; those only that
        `missing_from`, if not empty, lacks. Raises `NotFoundError`."""
        roles = await self._generations.roles_with(name, missing_from)
        source = roles.named(name) if name else roles.live
        if source is None:
            return Page()
        target = roles.named(missing_from) if missing_from else None
        suspects = self._lifecycle.suspects(target) if target is not None and source == roles.live else None
        if not after and suspects is None:
            # The pages never wait after that: what is written since is found by the next look.
            await self._lifecycle.settle(*(g for g in (source, target) if g is not None))
        if target is None:
            rows = await self._scanner.page(source, can, "", ["payload"], Consistency.BOUNDED, after, size)
            return Page.of(rows, rows[-1]["id"] if len(rows) == size else "", len(rows))
        return await self._lacking(source, target, can, size, after, suspects)

    async def _lacking(
        self,
        source: Generation,
        target: Generation,
        can: Capabilities,
        size: int,
        after: str,
        suspects: Sequence[str] | None,
    ) -> Page:
        """Looks at all items of `source`, or at `suspects` alone where it is known that no others can be lacking."""
        level, looked_at, rows = Consistency.BOUNDED, 0, list[Mapping[str, Any]]()
        for _ in range(_MOST_PAGES):
            if suspects is None:
                most = max(size, PAGE_ROWS)
                looked = await self._scanner.page(source, can, "", ["updated_at"], level, after, most)
                after = looked[-1]["id"] if len(looked) == most else ""
            else:
                ids = [i for i in suspects if i > after][:size]
                looked = list((await self._scanner.rows(source, ids, ["updated_at"], Consistency.STRONG)).values())
                after = ids[-1] if len(ids) == size else ""
            times = {row["id"]: row["updated_at"] for row in looked}
            lacking = await self._lifecycle.lacking_of(target, times, level)
            if len(lacking) > size:
                lacking = lacking[:size]
                after = lacking[-1]
            looked_at += sum(not after or i <= after for i in times)
            found = await self._scanner.rows(source, lacking, ["payload"], level)
            rows = [found[i] for i in sorted(found)]
            if rows or not after:
                break
        return Page.of(rows, after, looked_at)
