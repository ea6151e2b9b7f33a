"""What was measured of one way of searching."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.trainer.evaluate.statistics import Difference, compare, estimate


@dataclass(frozen=True)
class Measured:
    """One way of searching: its measures by query, AUC over judged pairs, and what a query takes."""

    name: str
    by_query: Mapping[str, Mapping[str, float]]
    auc: float | None
    p50_ms: float

    def mean(self, measure: str) -> float:
        """Over queries."""
        return estimate(list(self.by_query[measure].values())).mean

    def against(self, other: "Measured", measure: str) -> Difference:
        """Query by query."""
        mine, theirs = (list(each.by_query[measure].values()) for each in (self, other))
        return compare(mine, theirs)

    def times(self, other: "Measured", measure: str) -> float:
        """The ratio of both means."""
        return self.mean(measure) / max(other.mean(measure), 1e-9)
