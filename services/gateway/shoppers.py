"""What is known of a shopper: their history, as a vector and as weighted items.

The log is asked at each request, so the last event counts at once and a forgotten user is unknown at once; what is
costly, reading the items and encoding the history, is kept by the history's version.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.gateway.ports import (
    EventType,
    History,
    PastEvent,
    QueryEncoderPort,
    RetrievalPort,
    ScoredItem,
    UserAction,
    UserEventsPort,
    UserModel,
    Vectors,
)
from shared.behaviour import WEIGHTS, by_occasion
from shared.errors import AisleError

TELLING = (EventType.SEARCH, EventType.VIEW, EventType.CLICK, EventType.ADD_TO_CART, EventType.PURCHASE)
"""The types that say what a user likes."""
SEEN = (EventType.VIEW, EventType.CLICK)
BOUGHT = (EventType.PURCHASE,)
MAX_EXCLUDED = 1_000
"""What one answer of the log holds, and what the index leaves out at most."""
_MAX_RELATED_TO = 200
"""Items whose relatives the log sums up at most."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A shopper. `vector` is `None` where the history holds nothing that a model can read, or could not be read, which
    `unread` then explains; `items` are those the user did something with, each with its weight, at most 200;
    `groups` those of these that have one, by the item's id."""

    version: int
    vector: Vectors | None
    items: Sequence[ScoredItem]
    groups: Mapping[str, str] = field(default_factory=dict)
    unread: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePolicy:
    """The latest `events` of a user count, and an item's weight halves every `half_life_occasions` occasions. `kept`
    profiles are remembered, each for at most `kept_s` seconds, because items change."""

    events: int
    half_life_occasions: float
    kept: int
    kept_s: float


@dataclass(slots=True)
class _Kept:
    profile: Profile
    until: float


@dataclass(slots=True)
class Shoppers:
    """Profiles of users. `clock` gives seconds that never go back, `now` those since 1970."""

    events: UserEventsPort
    retrieval: RetrievalPort
    encoder: QueryEncoderPort
    policy: ProfilePolicy
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    _kept: OrderedDict[tuple[str, UserModel | None], _Kept] = field(default_factory=OrderedDict)

    async def profile(self, user_id: str, model: UserModel | None, timeout_s: Callable[[], float]) -> Profile | None:
        """The shopper `user_id`; `None` for one with no history. `timeout_s` gives what each call may take.

        Raises what the log raises. Without the index or the encoder the shopper has no vector, and is asked about
        anew the next time.
        """
        key = (user_id, model)
        kept = self._kept.get(key)
        if kept is not None and kept.until < self.clock():
            kept = None
        history = await self.events.history(
            user_id,
            types=TELLING,
            limit=self.policy.events,
            known_version=kept.profile.version if kept is not None else 0,
            timeout_s=timeout_s(),
        )
        if kept is not None and history.unchanged:
            self._kept.move_to_end(key)
            return kept.profile
        self._kept.pop(key, None)
        if not history.events:
            return None
        items = self._weighed(history.events)
        try:
            vector, groups = await self._encode(history, model, timeout_s)
            profile = Profile(history.version, vector, items, groups)
        except AisleError as error:
            return Profile(history.version, None, items, unread=error.message)
        self._kept[key] = _Kept(profile, self.clock() + self.policy.kept_s)
        if len(self._kept) > self.policy.kept:
            self._kept.popitem(last=False)
        return profile

    def forget(self, user_id: str) -> None:
        """Reads the shopper anew the next time: for when the vector is found to be another model's than the index."""
        for model in (None, *UserModel):
            self._kept.pop((user_id, model), None)

    async def did(self, user_id: str, types: Sequence[EventType], timeout_s: float) -> list[str]:
        """The items that the user did any of `types` with, the latest first, at most 1,000."""
        history = await self.events.history(user_id, types=types, limit=MAX_EXCLUDED, timeout_s=timeout_s)
        return list(dict.fromkeys(event.item_id for event in history.events))

    async def _encode(
        self, history: History, model: UserModel | None, timeout_s: Callable[[], float]
    ) -> tuple[Vectors | None, dict[str, str]]:
        ids = list(dict.fromkeys(event.item_id for event in history.events if event.item_id))
        stored = await self.retrieval.get_many(ids, with_vectors=True, timeout_s=timeout_s()) if ids else None
        groups = {item.item_id: item.group_id for item in stored.items if item.group_id} if stored else {}
        rows = {item.item_id: (row, item.title) for row, item in enumerate(stored.items)} if stored else {}
        actions = [self._action(event, rows) for event in history.events if event.query or event.item_id in rows]
        if not actions:
            return None, groups
        encoded = await self.encoder.encode_users(
            [actions], stored.vectors if stored else None, model, timeout_s=timeout_s()
        )
        return None if encoded.errors else encoded.vectors, groups

    def _action(self, event: PastEvent, rows: dict[str, tuple[int, str]]) -> UserAction:
        row, title = rows.get(event.item_id, (None, ""))
        return UserAction(event.type, max(self.now() - event.occurred_at_s, 0.0), event.query or title, row)

    def _weighed(self, events: Sequence[PastEvent]) -> list[ScoredItem]:
        """Each item once, by the occasion on which it was last acted on."""
        newest = max((event.occurred_at_s for event in events), default=0.0)
        weights = by_occasion(
            ((e.item_id, newest - e.occurred_at_s, WEIGHTS[e.type.name]) for e in events if e.item_id),
            self.policy.half_life_occasions,
        )
        heaviest = sorted(weights.items(), key=lambda pair: -pair[1])[:_MAX_RELATED_TO]
        return [ScoredItem(item_id, weight) for item_id, weight in heaviest]
