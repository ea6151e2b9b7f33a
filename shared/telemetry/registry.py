"""How metrics are declared: made and written down in one go, so that what is exported and what is documented agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Declaration:
    """One metric as people read of it. `name` is that of its series, `_total` of counters included."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    """What a value counts or measures: `seconds`, `bytes`, `items`, `share` (0 to 1), …"""
    meaning: str
    labels: Labels
    buckets: tuple[float, ...] = ()
    """Upper bounds, in `unit`; of histograms alone."""


class Registry:
    """Makes prometheus-client's metrics and remembers how each was declared, in that order."""

    def __init__(self) -> None:
        self.declarations: list[Declaration] = []

    def counter(self, name: str, unit: str, meaning: str, labels: Labels = ()) -> Counter:
        """Only ever rises; its rate is what tells."""
        self.declarations.append(Declaration(name, "counter", unit, meaning, labels))
        return Counter(name, meaning, labels)

    def gauge(self, name: str, unit: str, meaning: str, labels: Labels = ()) -> Gauge:
        """A state now."""
        self.declarations.append(Declaration(name, "gauge", unit, meaning, labels))
        return Gauge(name, meaning, labels)

    def histogram(
        self, name: str, unit: str, meaning: str, labels: Labels = (), *, buckets: Sequence[float]
    ) -> Histogram:
        """How values are spread, by bucket."""
        self.declarations.append(Declaration(name, "histogram", unit, meaning, labels, tuple(buckets)))
        return Histogram(name, meaning, labels, buckets=buckets)
