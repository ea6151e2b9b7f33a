"""What `Recommend` is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from services.gateway import validation
from services.gateway.ports import UserModel
from shared.errors import FieldViolation

MAX_BASKET = 50
MAX_ARM_CHARS = 64
MAX_USER_ID_CHARS = 256
"""As the log has it."""


class Context(Enum):
    """What recommendations start from. The names are the wire's."""

    HOME = 1
    SIMILAR_ITEMS = 2
    BASKET = 3
    AFTER_SEARCH = 4


_ITEMS = {Context.HOME: 0, Context.SIMILAR_ITEMS: 1, Context.BASKET: MAX_BASKET, Context.AFTER_SEARCH: 0}
"""How many items each may start from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is asked for; see `aisle.gateway.v1.RecommendRequest`."""

    context: Context
    user_id: str = ""
    item_ids: Sequence[str] = ()
    query: str = ""
    exclude_seen: bool = False
    exclude_purchased: bool = False
    diversity: float | None = None
    user_model: UserModel | None = None

    def problems(self) -> list[FieldViolation]:
        """What is wrong with it."""
        found = user_problems(self.user_id) + self._item_problems()
        if self.context is Context.AFTER_SEARCH:
            found += validation.query_problems(self.query.strip())
        elif self.query:
            found.append(FieldViolation("query", f"must be empty for {self.context.name}"))
        if (self.exclude_seen or self.exclude_purchased) and not self.user_id:
            found.append(FieldViolation("user_id", "must name the user whose items are to be left out"))
        return found + share_problems(self.diversity, "diversity")

    def _item_problems(self) -> list[FieldViolation]:
        most = _ITEMS[self.context]
        if not most:
            wrong = bool(self.item_ids)
            return [FieldViolation("item_ids", f"must be empty for {self.context.name}")] if wrong else []
        found = validation.count_problems(len(self.item_ids), most, "item_ids")
        for at, item_id in enumerate(self.item_ids[:most]):
            found += validation.id_problems(item_id, f"item_ids[{at}]")
        return found


def user_problems(user_id: str) -> list[FieldViolation]:
    """What is wrong with a user's id, which may be empty."""
    if len(user_id) > MAX_USER_ID_CHARS:
        return [FieldViolation("user_id", f"must be at most {MAX_USER_ID_CHARS} characters")]
    return []


def arm_problems(experiment_arm: str) -> list[FieldViolation]:
    """What is wrong with an experiment's arm, which comes back with every event."""
    if len(experiment_arm) > MAX_ARM_CHARS:
        return [FieldViolation("experiment_arm", f"must be at most {MAX_ARM_CHARS} characters")]
    return []


def share_problems(value: float | None, field: str) -> list[FieldViolation]:
    """What is wrong with a number from 0 to 1 that may be left out."""
    return [] if value is None or 0 <= value <= 1 else [FieldViolation(field, "must be 0 to 1")]
