"""From an event as it is sent to an event as it is kept: checked, its user hashed, its origin read, nobody's address in
it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from services.user_events import pii
from services.user_events.events import Event, EventType, SentEvent
from services.user_events.identity import Identities
from services.user_events.settings import PiiPolicy
from services.user_events.validation import WITH_PIECES, violations
from shared.attribution import Attribution, AttributionTokens
from shared.errors import FieldViolation

PII_REASON = "PERSONAL_DATA"


@dataclass(frozen=True, slots=True)
class Admitted:
    """An event that can be kept."""

    event: Event
    unattributed: bool = False
    """Whether it came with an attribution token that is not the mesh's own."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an event cannot be kept."""

    violations: list[FieldViolation]
    reason: str


class Intake:
    """Looks at events as they come. `now` gives microseconds since 1970."""

    def __init__(
        self, identities: Identities, tokens: AttributionTokens, policy: PiiPolicy, now: Callable[[], int]
    ) -> None:
        self._identities = identities
        self._tokens = tokens
        self._policy = policy
        self._now = now

    def admit(self, sent: SentEvent) -> Admitted | Refused:
        """`sent` as it is kept, or why it is not."""
        now = self._now()
        if broken := violations(sent, now):
            return Refused(broken, "INVALID_ARGUMENT")
        personal = [name for name, value in sent.properties.items() if pii.is_personal(value)]
        if personal and self._policy == "refuse":
            # Names are the caller's, too, and may hold anything.
            rule = "holds what looks like an e-mail address, a telephone or a card number: leave it out"
            return Refused([FieldViolation("properties", rule)], PII_REASON)
        kept = {name: value for name, value in sent.properties.items() if name not in personal}
        attribution = self._attribution(sent)
        return Admitted(self._event(sent, kept, attribution, now), bool(sent.attribution_token) and attribution is None)

    def _event(
        self, sent: SentEvent, properties: Mapping[str, str], attribution: Attribution | None, now: int
    ) -> Event:
        kind = EventType(sent.type)
        return Event(
            id=sent.id,
            type=kind,
            user_key=self._identities.user(sent.user_id) if sent.user_id else None,
            session_key=self._identities.session(sent.session_id) if sent.session_id else None,
            occurred_at=now if sent.occurred_at is None else sent.occurred_at,
            arrived_at=now,
            item_id=sent.item_id or None,
            item_ids=tuple(sent.item_ids),
            first_position=sent.first_position,
            query=pii.redact(sent.query) if kind is EventType.SEARCH else None,
            quantity=max(sent.quantity, 1) if kind in WITH_PIECES else 0,
            price=sent.price,
            sampled_one_in=max(sent.sampled_one_in, 1),
            properties=properties,
            attribution=attribution,
        )

    def _attribution(self, sent: SentEvent) -> Attribution | None:
        if not sent.attribution_token:
            return None
        found = self._tokens.read(sent.attribution_token, sent.item_id)
        # What was typed reached the gateway without passing here.
        return None if found is None else replace(found, query=pii.redact(found.query))
