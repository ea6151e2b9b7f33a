"""A small shop in memory, behind the gateway's ports: an index that really compares vectors, and a log that really
remembers. Any part can be taken `down`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.gateway.ports import (
    Candidate,
    EncodedText,
    EncodedUsers,
    EventType,
    Found,
    History,
    Impression,
    Mode,
    PastEvent,
    RowError,
    ScoredItem,
    Stored,
    StoredItems,
    UserAction,
    UserModel,
    Vectors,
)
from services.gateway.shoppers import ProfilePolicy, Shoppers
from shared.errors import AisleError, UnavailableError, VersionMismatchError

VERSION = "v1"


def packed(rows: Any, version: str = VERSION) -> Vectors:
    """Rows of numbers as they travel."""
    array = np.atleast_2d(np.asarray(rows, "<f4"))
    return Vectors(array.tobytes(), len(array), array.shape[1], 1, version)


@dataclass
class Thing:
    """An item of the shop."""

    vector: Sequence[float]
    group: str = ""
    popularity: float = 0.0


@dataclass
class Shop:
    """Index, log and encoder in one. A filter is a set of item ids."""

    things: dict[str, Thing]
    past: dict[str, list[PastEvent]] = field(default_factory=dict)
    relations: dict[str, dict[str, float]] = field(default_factory=dict)
    popularity: dict[str, float] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    version: str = VERSION
    calls: list[str] = field(default_factory=list)
    written: list[Impression] = field(default_factory=list)

    def did(self, user: str, kind: EventType, item: str = "", *, at_s: float = 0.0, query: str = "") -> None:
        self.past.setdefault(user, []).append(PastEvent(kind, at_s, item, query))

    def _call(self, part: str, what: str) -> None:
        self.calls.append(what)
        if part in self.down:
            raise self.error(part)

    @staticmethod
    def error(part: str) -> AisleError:
        return UnavailableError(part)

    # --- index ---

    def _met(self, filter_: Any, exclude: Sequence[str]) -> list[str]:
        return [name for name in self.things if (filter_ is None or name in filter_) and name not in exclude]

    def _found(self, names: Sequence[str], scores: Sequence[float], *, ranked: bool, with_vectors: bool) -> Found:
        hits = [
            Candidate(
                name,
                f"item {name}",
                score,
                score if ranked else None,
                rank + 1 if ranked else None,
                group_id=self.things[name].group,
            )
            for rank, (name, score) in enumerate(zip(names, scores, strict=True))
        ]
        vectors = packed([self.things[n].vector for n in names], self.version) if with_vectors and names else None
        return Found(hits, "g1", self.version, (), vectors)

    async def search(
        self,
        *,
        vector: Vectors | None,
        text: str | None,
        mode: Mode,
        filter_: object | None,
        limit: int,
        exclude: Sequence[str] = (),
        outside_groups: Collection[str] = (),
        with_vectors: bool = False,
        timeout_s: float,
    ) -> Found:
        self._call("index", "search")
        if vector is not None and vector.model_version != self.version:
            raise VersionMismatchError(vector.model_version, self.version)
        names = [name for name in self._met(filter_, exclude) if self.things[name].group not in outside_groups]
        query = np.frombuffer(vector.data, "<f4") if vector else np.ones(len(next(iter(self.things.values())).vector))
        scores = {name: _cosine(self.things[name].vector, query) for name in names}
        best = sorted(names, key=lambda name: -scores[name])[:limit]
        return self._found(best, [scores[n] for n in best], ranked=True, with_vectors=with_vectors)

    async def browse(
        self,
        *,
        filter_: object | None,
        ids: Sequence[str] = (),
        limit: int,
        exclude: Sequence[str] = (),
        with_vectors: bool = False,
        timeout_s: float,
    ) -> Found:
        self._call("index", "browse")
        names = [name for name in self._met(filter_, exclude) if not ids or name in ids]
        best = sorted(names, key=lambda name: -self.things[name].popularity)[:limit]
        return self._found(best, [self.things[n].popularity for n in best], ranked=False, with_vectors=with_vectors)

    async def get(self, item_id: str, *, with_vector: bool, timeout_s: float) -> Stored | None:
        self._call("index", "get")
        thing = self.things[item_id]
        return Stored(f"item {item_id}", thing.group, packed(thing.vector, self.version), item_id)

    async def get_many(self, ids: Sequence[str], *, with_vectors: bool, timeout_s: float) -> StoredItems:
        self._call("index", "get_many")
        names = [name for name in ids if name in self.things]
        items = [Stored(f"item {n}", self.things[n].group, None, n, f"title of {n}") for n in names]
        return StoredItems(items, packed([self.things[n].vector for n in names], self.version) if names else None)

    async def upsert(self, items: Sequence[object], vectors: Vectors, *, timeout_s: float) -> Sequence[RowError]:
        raise NotImplementedError

    async def delete(self, ids: Sequence[str], *, timeout_s: float) -> int:
        raise NotImplementedError

    # --- encoder ---

    async def encode(self, text: str, *, with_tokens: bool = False, timeout_s: float) -> EncodedText:
        self._call("encoder", "encode")
        vector = self.things[text].vector if text in self.things else [1.0, 0.0, 0.0]
        return EncodedText(packed(vector, self.version))

    async def encode_users(
        self,
        histories: Sequence[Sequence[UserAction]],
        item_vectors: Vectors | None,
        model: UserModel | None = None,
        *,
        timeout_s: float,
    ) -> EncodedUsers:
        self._call("encoder", "encode_users")
        used = model or UserModel.WEIGHTED_MEAN
        rows = [action.item_row for action in histories[0] if action.item_row is not None]
        if item_vectors is None or not rows:
            return EncodedUsers(packed([0.0, 0.0, 0.0]), used, [RowError(0, "", "", "NO_HISTORY", "")])
        matrix = np.frombuffer(item_vectors.data, "<f4").reshape(item_vectors.rows, -1)
        return EncodedUsers(packed(matrix[rows].mean(axis=0), item_vectors.model_version), used)

    # --- log ---

    async def history(
        self,
        user_id: str,
        *,
        types: Sequence[EventType] = (),
        limit: int,
        known_version: int = 0,
        timeout_s: float,
    ) -> History:
        self._call("log", "history")
        all_events = self.past.get(user_id, [])
        if known_version and known_version == len(all_events):
            return History((), known_version, unchanged=True)
        newest = sorted(all_events, key=lambda event: -event.occurred_at_s)
        return History([e for e in newest if not types or e.type in types][:limit], len(all_events))

    async def related(self, items: Sequence[ScoredItem], *, limit: int, timeout_s: float) -> Sequence[ScoredItem]:
        self._call("log", "related")
        sums: dict[str, float] = {}
        for item in items:
            for other, weight in self.relations.get(item.item_id, {}).items():
                sums[other] = sums.get(other, 0.0) + item.score * weight
        return [ScoredItem(*pair) for pair in sorted(sums.items(), key=lambda pair: -pair[1])[:limit]]

    async def popular(self, *, window_s: float, limit: int, timeout_s: float) -> Sequence[ScoredItem]:
        self._call("log", "popular")
        return [ScoredItem(*pair) for pair in sorted(self.popularity.items(), key=lambda pair: -pair[1])[:limit]]

    async def impressions(self, ids: Sequence[str], *, timeout_s: float) -> Sequence[int]:
        self._call("log", "impressions")
        return [self.seen.get(item_id, 0) for item_id in ids]

    async def write(self, events: Sequence[Impression], *, timeout_s: float) -> Sequence[RowError]:
        self._call("log", "write")
        self.written += events
        return []


def shoppers(shop: Shop, **changes: Any) -> Shoppers:
    """Who shops there."""
    rules = ProfilePolicy(**{"events": 100, "half_life_occasions": 1.0, "kept": 10, "kept_s": 60.0, **changes})
    return Shoppers(shop, shop, shop, rules)


def strangers() -> Shoppers:
    """Who nobody knows."""
    return shoppers(Shop({}))


def _cosine(a: Any, b: Any) -> float:
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))
