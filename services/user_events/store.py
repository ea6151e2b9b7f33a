"""All that the service does, in one place: who looks at what comes in, who writes, who reads."""

import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

import structlog

from services.user_events import positions, schema_version
from services.user_events.counts import Counts
from services.user_events.database import Database
from services.user_events.events import Event, EventType, SentEvent
from services.user_events.history import Histories, History, Receipt
from services.user_events.identity import Identities
from services.user_events.intake import Admitted, Intake, Refused
from services.user_events.journal import Journal
from services.user_events.popularity import ItemStats
from services.user_events.related import Related, Relations
from services.user_events.settings import UserEventsSettings
from services.user_events.stream import Log, Page, Selection
from services.user_events.writer import GroupCommit, Outcome
from shared.attribution import AttributionTokens
from shared.errors import AisleError, UnavailableError
from shared.telemetry import metrics

_log = structlog.get_logger()


def now_micros() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


class Store:
    """What shoppers did, at `settings.uri`."""

    def __init__(self, settings: UserEventsSettings) -> None:
        self.database = Database(settings)
        self._identities = Identities(settings.identity_key.get_secret_value().encode())
        tokens = AttributionTokens(settings.attribution_key.get_secret_value().encode())
        self._intake = Intake(self._identities, tokens, settings.pii_policy, now_micros)
        self._journal = Journal(self.database)
        self._writer = GroupCommit(
            self._append, settings.write_buffer_events, settings.commit_events, metrics.EVENTS_WAITING
        )
        self._histories = Histories(self.database)
        self._log = Log(self.database)
        self._counts = Counts(self.database, settings.cache_s, settings.popularity_half_life_days)
        self._relations = Relations(self.database)
        for kind in EventType:
            metrics.EVENTS_STORED.labels(kind.name)

    @classmethod
    async def open(cls, settings: UserEventsSettings) -> "Store":
        """The store, as far as it can be reached: a server that is down is looked for again by each call.

        Raises `FailedPreconditionError` when a file cannot be opened, or the schema is of another version.
        """
        store = cls(settings)
        try:
            if store.database.is_server:
                await schema_version.check(store.database)
            else:
                await schema_version.upgrade(store.database)
        except UnavailableError as error:
            if not store.database.is_server:
                await store.database.close()
                raise
            _log.warning("database is not ready yet", why=str(error))
        except AisleError:
            await store.database.close()
            raise
        if store.database.is_server and settings.has_development_key:
            _log.warning(
                "users are hashed with the development key, so that their ids can be tried: set identity_key "
                "before the first event of a real shop"
            )
        store._writer.start()
        return store

    async def close(self) -> None:
        """Writes what waits, and disconnects."""
        await self._writer.close()
        await self._counts.close()
        await self.database.close()

    async def check(self) -> str | None:
        """`None` when the database answers and has the schema that this version needs."""
        try:
            await schema_version.check(self.database)
        except AisleError as error:
            return error.message
        return None

    def admit(self, sent: SentEvent) -> Admitted | Refused:
        """Whether an event can be kept, and as what."""
        looked_at = self._intake.admit(sent)
        if isinstance(looked_at, Refused):
            metrics.EVENTS_REFUSED.labels(looked_at.reason).inc()
        return looked_at

    async def write(self, admitted: Sequence[Admitted]) -> list[Outcome]:
        """What became of events, once they are durable."""
        if not admitted:
            return []
        outcomes = await self._writer.write([one.event for one in admitted])
        for one, outcome in zip(admitted, outcomes, strict=True):
            match outcome:
                case Outcome.STORED:
                    metrics.EVENTS_STORED.labels(one.event.type.name).inc()
                    positions.count(one.event)
                    if one.unattributed:
                        metrics.EVENTS_UNATTRIBUTED.inc()
                case Outcome.DUPLICATE:
                    metrics.EVENTS_DUPLICATE.inc()
                case Outcome.REFUSED:
                    metrics.EVENTS_REFUSED.labels("STORE_REFUSED").inc()
        return outcomes

    async def history(
        self, user_id: str, types: Collection[EventType], limit: int, since: int | None, known_version: int
    ) -> History:
        """A user's latest events."""
        return await self._histories.latest(self._identities.user(user_id), types, limit, since, known_version)

    async def stats(self, item_ids: Sequence[str], window_hours: int) -> list[ItemStats]:
        """What was done with items."""
        return await self._counts.stats(item_ids, window_hours, now_micros())

    async def popular(self, window_hours: int, limit: int) -> Sequence[tuple[str, float]]:
        """The most popular items with their scores."""
        return await self._counts.popular(window_hours, limit, now_micros())

    async def related(self, weights: Mapping[str, float], limit: int) -> Related:
        """What goes with items."""
        return await self._relations.related(weights, limit)

    def stream(self, selection: Selection, cursor: str) -> AsyncIterator[Page]:
        """The log in pages."""
        return self._log.read(selection, cursor)

    async def known_since(self, user_keys: Collection[bytes]) -> Mapping[bytes, int]:
        """When the first event that is still kept of each user arrived."""
        return await self._histories.known_since(user_keys)

    def export(self, user_id: str) -> AsyncIterator[list[Event]]:
        """All events of a user in pages."""
        return self._histories.export(self._identities.user(user_id))

    async def forget(self, user_id: str) -> Receipt:
        """Deletes all that is kept about a user."""
        receipt = await self._histories.forget(self._identities.user(user_id), now_micros())
        metrics.EVENTS_DELETED.labels("forgotten").inc(receipt.events)
        return receipt

    async def _append(self, events: Sequence[Event]) -> Sequence[bool]:
        with metrics.EVENTS_COMMIT_SECONDS.time():
            new = await self._journal.append(events)
        metrics.EVENTS_COMMIT_EVENTS.observe(len(events))
        return new
