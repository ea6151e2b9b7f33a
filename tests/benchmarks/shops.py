"""What the rows of part "retrieval" share: a shop of titles, and its index on each home, made when first asked for."""

import contextlib

import numpy as np

from tests.benchmarks import corpora, texts, vectors
from tests.benchmarks.bench import Bench
from tests.benchmarks.corpora import Corpus
from tests.benchmarks.figures import OUT
from tests.benchmarks.indexes import Index, indexed, milvus_server
from tests.benchmarks.search_load import Loads
from tests.benchmarks.vectors import Vectors

ITEMS = 50_000
QUICK_ITEMS = 10_000
QUERIES = 2_000


class Shops(Bench):
    """Indexes live as long as `stack`."""

    def __init__(self, quick: bool, full: bool, stack: contextlib.AsyncExitStack) -> None:
        super().__init__(quick)
        self.full = full
        self.size = QUICK_ITEMS if quick else ITEMS
        self._stack = stack
        self._server: str | None = None
        self._indexes: dict[str, Index] = {}
        self._titles: Corpus | None = None

    def titles(self) -> Corpus:
        """`size` of them, or more."""
        if self._titles is None:
            self._titles = corpora.priced_titles(ITEMS)
        return self._titles

    async def asked(self, count: int = QUERIES) -> Vectors:
        """What shoppers typed, as vectors."""
        return await vectors.of_queries(self, texts.queries(count))

    async def loads(self) -> Loads:
        """Of those queries."""
        path = OUT / "vectors" / "queries.npy"
        np.save(path, await self.asked())
        return Loads(path, self.bundle.version, self.seconds)

    async def server(self) -> str:
        """The address of a Milvus server."""
        if self._server is None:
            self._server = (await self._stack.enter_async_context(milvus_server())).uri
        return self._server

    async def rows(self) -> Vectors:
        """The vectors of all `titles`."""
        return await vectors.of_items(self, self.titles().items)

    async def on(self, home: str) -> Index:
        """The titles on `server` or `lite`."""
        if home not in self._indexes:
            items = self.titles().items[: self.size]
            rows = (await self.rows())[: self.size]
            uri = await self.server() if home == "server" else ""
            opened = indexed(f"titles_{home}", uri, items, rows, self.bundle.version)
            self._indexes[home] = await self._stack.enter_async_context(opened)
        return self._indexes[home]
