"""Refused rows, counted by reason: however many there are, they take the memory of a page of text."""

from collections.abc import Iterator
from dataclasses import dataclass, field

MOST_REASONS = 50
"""More than anybody reads. Reasons may quote numbers ("has 3 cells"), so a damaged file has thousands of them."""
OTHER = "other reasons"
"""What reasons beyond the most are counted as."""
_EXAMPLES = 3
_SHOWN = 10


@dataclass(slots=True)
class Reason:
    """How often it came up, and where first."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Rejections:
    """Counts by reason, in the order in which the reasons came up."""

    reasons: dict[str, Reason] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Rows refused."""
        return sum(reason.count for reason in self.reasons.values())

    def add(self, reason: str, where: str) -> None:
        """Counts a row. `where` names it for people: `line 7`."""
        self._merge(reason, 1, [where])

    def update(self, other: "Rejections") -> None:
        """Counts what `other` has counted."""
        for text, reason in other.reasons.items():
            self._merge(text, reason.count, reason.examples)

    def lines(self, most: int = _SHOWN) -> Iterator[str]:
        """For people, the most frequent first: `2 × title: must not be empty (line 3, line 8)`."""
        ordered = sorted(self.reasons.items(), key=lambda entry: entry[1].count, reverse=True)
        for text, reason in ordered[:most]:
            more = ", …" if reason.count > len(reason.examples) else ""
            yield f"{reason.count:,} × {text} ({', '.join(reason.examples)}{more})"
        if len(ordered) > most:
            rest = sum(reason.count for _, reason in ordered[most:])
            yield f"{rest:,} × one of {len(ordered) - most} other reasons"

    def _merge(self, text: str, count: int, examples: list[str]) -> None:
        known = text in self.reasons or len(self.reasons) < MOST_REASONS
        reason = self.reasons.setdefault(text if known else OTHER, Reason())
        reason.count += count
        reason.examples += examples[: _EXAMPLES - len(reason.examples)]
