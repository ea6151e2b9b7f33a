"""What a panel and a dashboard are, and the PromQL that many panels share."""

from dataclasses import dataclass

_WINDOW = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph. `unit` is Grafana's id of a unit."""

    title: str
    query: str
    unit: str
    tells: str
    do: str
    legend: str = ""
    empty: str = ""
    """Why it may show nothing on a healthy mesh."""


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    panels: tuple[Panel, ...]


def rate(metric: str, by: str) -> str:
    """A second, by labels."""
    return f"sum by ({by}) (rate({metric}[{_WINDOW}]))"


def share(part: str, whole: str, by: str) -> str:
    """Of `whole`, 0 to 1."""
    return f"{rate(part, by)} / {rate(whole, by)}"


def quantile(q: float, histogram: str, by: str, where: str = "") -> str:
    """Of a histogram, by labels."""
    return f"histogram_quantile({q:g}, {rate(f'{histogram}_bucket{where}', f'{by}, le' if by else 'le')})"


def mean(histogram: str, by: str) -> str:
    """Of a histogram, by labels."""
    return share(f"{histogram}_sum", f"{histogram}_count", by)
