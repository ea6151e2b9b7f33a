"""Service level objectives, and the rules that follow from each: recorded ratios, and alerts on how fast the budget of
errors is spent (multi-window, multi-burn-rate: the SRE Workbook, chapter 5)."""

from collections.abc import Iterator
from dataclasses import dataclass

_ANSWERS = 'aisle_gateway_stage_seconds_count{stage="total"}'
_CALLS = 'grpc_server_handled_total{grpc_service="aisle.gateway.v1.Gateway"}'
FAULTS = "Unknown|DeadlineExceeded|ResourceExhausted|Unimplemented|Internal|Unavailable|DataLoss"
"""Codes that are the mesh's fault and not the caller's, as a regular expression."""
_TIMES = 'grpc_server_handling_seconds_%s{grpc_service="aisle.gateway.v1.Gateway"%s}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A promise over 30 days: at least the share `target` of `every` is good. All are counters; either the bad ones
    are counted, or the good ones."""

    name: str
    target: float
    every: str
    bad: str = ""
    good: str = ""
    promise: str

    @property
    def budget(self) -> float:
        """The share of bad ones that keeps the promise, 0 to 1."""
        return 1 - self.target

    def ratio(self, window: str) -> str:
        """PromQL: the share of bad ones in `window`, 0 to 1; no value where there were none at all."""
        share = f"sum(rate({self.bad or self.good}[{window}])) / sum(rate({self.every}[{window}]))"
        # Sums of the same rates, added in another order, can differ in the last digit: then 1 - share is below 0.
        return share if self.bad else f"clamp_min(1 - {share}, 0)"


OBJECTIVES = (
    Objective(
        name="availability",
        target=0.999,
        bad=_CALLS.replace("}", f',grpc_code=~"{FAULTS}"}}'),
        every=_CALLS,
        promise="99.9 % of the gateway's calls end without a fault of the mesh",
    ),
    Objective(
        name="latency",
        target=0.99,
        good=_TIMES % ("bucket", ',le="0.25"'),
        every=_TIMES % ("count", ""),
        promise="99 % of the gateway's calls take 250 ms at most",
    ),
    Objective(
        name="degraded",
        target=0.99,
        bad="aisle_gateway_answers_degraded_total",
        every=_ANSWERS,
        promise="99 % of answers leave nothing out (what is not known of a new shopper aside)",
    ),
    Objective(
        name="zero_results",
        target=0.95,
        bad="aisle_gateway_zero_results_total",
        every=_ANSWERS,
        promise="95 % of answers have a result",
    ),
)

_WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True, slots=True)
class _Burn:
    """Alert where the budget is spent `factor` times as fast as it lasts, over both windows: the long one says that it
    matters, the short one that it still goes on."""

    severity: str
    long: str
    short: str
    factor: float


_BURNS = (
    # 2 % of the month's budget in an hour, 5 % in six hours; 10 % in a day, or in three.
    _Burn("page", "1h", "5m", 14.4),
    _Burn("page", "6h", "30m", 6),
    _Burn("ticket", "1d", "2h", 3),
    _Burn("ticket", "3d", "6h", 1),
)


def rules() -> str:
    """The rule file, as YAML."""
    return "\n".join(_lines()) + "\n"


def alert_name(objective: Objective) -> str:
    """`AisleZeroResultsBudgetBurning`."""
    return f"Aisle{objective.name.title().replace('_', '')}BudgetBurning"


def _lines() -> Iterator[str]:
    yield "# Made by `make docs` from deploy/prometheus/slo.py; do not edit."
    yield "groups:"
    for objective in OBJECTIVES:
        yield f"  # {objective.promise}."
        yield f"  - name: aisle-slo-{objective.name.replace('_', '-')}"
        yield "    rules:"
        for window in _WINDOWS:
            yield f"      - record: {_record(window)}"
            yield f"        expr: {objective.ratio(window)}"
            yield f"        labels: {{slo: {objective.name}}}"
        for severity in ("page", "ticket"):
            yield from _alert(objective, severity)


def _alert(objective: Objective, severity: str) -> Iterator[str]:
    yield f"      - alert: {alert_name(objective)}"
    yield "        expr: >-"
    conditions = [_condition(objective, burn) for burn in _BURNS if burn.severity == severity]
    yield "          " + "\n          or ".join(conditions)
    yield f"        labels: {{severity: {severity}, slo: {objective.name}}}"
    yield "        annotations:"
    missed = "{{ $value | humanizePercentage }} are not"
    yield f'          summary: "Not kept at this rate: {objective.promise} ({missed})"'
    yield f"          runbook: docs/runbooks/{objective.name.replace('_', '-')}.md"


def _condition(objective: Objective, burn: _Burn) -> str:
    most = f"{burn.factor * objective.budget:.6g}"
    long, short = (f'{_record(w)}{{slo="{objective.name}"}} > {most}' for w in (burn.long, burn.short))
    return f"({long} and {short})"


def _record(window: str) -> str:
    return f"aisle:slo_errors:ratio_rate{window}"
