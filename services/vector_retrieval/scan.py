"""Every row of a generation, page by page in the order of ids, with no more than a page in memory."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from services.vector_retrieval import expressions
from services.vector_retrieval.calls import QueryCall
from services.vector_retrieval.capabilities import Capabilities
from services.vector_retrieval.generations import Generation
from services.vector_retrieval.lite import Gate
from services.vector_retrieval.milvus import Connection

PAGE_ROWS = 500
"""Rows a page: some hundred kilobytes of items, a few megabytes at the most an item may weigh."""

Stored = Mapping[str, Any]


class Scanner:
    """Reads generations of one store from their first id to their last."""

    def __init__(self, connection: Connection, gate: Gate) -> None:
        self._connection = connection
        self._gate = gate

    async def pages(
        self, generation: Generation, can: Capabilities, expression: str, columns: Sequence[str], level: str
    ) -> AsyncIterator[list[Stored]]:
        """All rows that meet `expression` (empty: all there are), each with its id and `columns`. Rows written
        meanwhile may be in a page that has not been read yet."""
        after = ""
        while page := await self.page(generation, can, expression, columns, level, after, PAGE_ROWS):
            yield page
            after = page[-1]["id"]

    async def page(
        self,
        generation: Generation,
        can: Capabilities,
        expression: str,
        columns: Sequence[str],
        level: str,
        after: str,
        rows: int,
    ) -> list[Stored]:
        """The first `rows` of those rows whose id is greater than `after`; empty when there are no more."""
        beyond = expressions.both(expressions.after(after), expression)
        if can.ordered:
            found = await self._query(generation, beyond, columns, level, limit=rows)
        else:
            # Such a store cuts wherever it likes: its ids are sorted here, and it holds no more than memory does.
            ids = sorted(row["id"] for row in await self._query(generation, beyond, (), level))[:rows]
            found = await self._query(generation, expressions.ids_in(ids), columns, level) if ids else []
        return sorted(found, key=lambda row: str(row["id"]))

    async def some(
        self, generation: Generation, expression: str, columns: Sequence[str], level: str, rows: int
    ) -> list[Stored]:
        """`rows` of the rows that meet `expression`, or all if there are fewer: which ones, the store decides."""
        return await self._query(generation, expression, columns, level, limit=rows)

    async def count(self, generation: Generation, expression: str, level: str) -> int:
        """How many rows meet `expression`."""
        async with self._gate.reading():
            counted = await self._connection.read(
                "query",
                generation.collection,
                filter=expression,
                output_fields=["count(*)"],
                consistency_level=level,
            )
        return int(counted[0]["count(*)"])

    async def rows(
        self, generation: Generation, ids: Sequence[str], columns: Sequence[str], level: str
    ) -> dict[str, Stored]:
        """The rows with these ids, as far as they are there."""
        found: dict[str, Stored] = {}
        for start in range(0, len(ids), PAGE_ROWS):
            wanted = expressions.ids_in(ids[start : start + PAGE_ROWS])
            found.update({row["id"]: row for row in await self._query(generation, wanted, columns, level)})
        return found

    async def _query(
        self, generation: Generation, expression: str, columns: Sequence[str], level: str, limit: int | None = None
    ) -> list[Stored]:
        call = QueryCall(
            collection=generation.collection, expression=expression, columns=columns, level=level, limit=limit
        )
        async with self._gate.reading():
            return list(await self._connection.ask("query", call.run))
