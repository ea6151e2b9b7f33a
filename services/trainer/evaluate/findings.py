"""What an evaluation says, as data: `evaluation.json`, and what the HTML page shows."""

from dataclasses import asdict, dataclass
from typing import Any

from services.trainer.evaluate.measures import NDCG_10
from services.trainer.evaluate.resampling import Interval, Shift, Values, interval, resample, shift
from services.trainer.evaluate.score import Data, Scored
from services.trainer.evaluate.slices import slices
from services.trainer.evaluate.statistics import Difference, Estimate, compare, estimate

WORST = 20
_SHOWN_ITEMS = 5


@dataclass(frozen=True, slots=True)
class Shown:
    """An item that was returned for a query."""

    title: str
    grade: float | None
    """None: nobody judged it."""


@dataclass(frozen=True, slots=True)
class WorstQuery:
    """A query that went badly, and what it was answered."""

    query: str
    ndcg: float
    baseline_ndcg: float | None
    returned: list[Shown]
    wanted: list[Shown]


@dataclass(frozen=True, slots=True)
class Slice:
    """NDCG@10 of some queries."""

    kind: str
    name: str
    model: Estimate
    baseline: Estimate | None
    difference: Difference | None


@dataclass(frozen=True)
class Findings:
    """All of it."""

    model: Scored
    baseline: Scored | None
    measures: dict[str, Estimate]
    baseline_measures: dict[str, Estimate]
    differences: dict[str, Difference]
    intervals: dict[str, Interval]
    """Of the measures of classification."""
    baseline_intervals: dict[str, Interval]
    shifts: dict[str, Shift]
    """The same measures, one model beside the other."""
    slices: list[Slice]
    worst: list[WorstQuery]
    context: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """`evaluation.json`: numbers only, no texts of queries or items."""
        rows = {"model": (self.model, self.measures, self.intervals)}
        if self.baseline:
            rows["baseline"] = (self.baseline, self.baseline_measures, self.baseline_intervals)
        return {
            "context": self.context,
            **{
                role: {
                    "name": scored.name,
                    "version": scored.version,
                    "measures": {name: asdict(value) for name, value in measures.items()},
                    "classification": {
                        **scored.classification.values,
                        "threshold": scored.classification.threshold,
                        "confusion": scored.classification.confusion,
                        "pairs": scored.classification.pairs,
                        "relevant": scored.classification.relevant,
                        "intervals": {name: asdict(value) for name, value in intervals.items()},
                    },
                }
                for role, (scored, measures, intervals) in rows.items()
            },
            "differences": {name: asdict(value) for name, value in self.differences.items()},
            "classification_differences": {name: asdict(value) for name, value in self.shifts.items()},
            "slices": [asdict(each) for each in self.slices],
        }


def find(model: Scored, baseline: Scored | None, data: Data, context: dict[str, Any]) -> Findings:
    """Means, intervals, tests and slices of one model, beside another's where one is given."""
    categories = {item.id: item.category_path[0] for item in data.items if item.category_path}
    # Those without a relevant item are not measured: a slice of them would be smaller than it says, or empty.
    measured = {key: text for key, text in data.split.queries.items() if key in data.relevant}
    groups = slices(measured, data.relevant, categories, data.popularity, data.before)
    ours, theirs = resample(model.judged), resample(baseline.judged) if baseline else {}
    return Findings(
        model=model,
        baseline=baseline,
        measures=_estimates(model),
        baseline_measures=_estimates(baseline) if baseline else {},
        differences={name: _paired(model, baseline, name) for name in model.measures} if baseline else {},
        intervals=_intervals(ours),
        baseline_intervals=_intervals(theirs),
        shifts=_shifts(model, ours, baseline, theirs) if baseline else {},
        slices=[
            _slice(kind, name, keys, model, baseline) for kind, named in groups.items() for name, keys in named.items()
        ],
        worst=_worst(model, baseline, data),
        context=context,
    )


def _estimates(scored: Scored) -> dict[str, Estimate]:
    return {name: estimate(list(values.values())) for name, values in scored.measures.items()}


def _intervals(resamples: Values) -> dict[str, Interval]:
    return {name: interval(values) for name, values in resamples.items()}


def _shifts(model: Scored, ours: Values, baseline: Scored, theirs: Values) -> dict[str, Shift]:
    before = baseline.classification.values
    return {
        name: shift(value - before[name], ours[name], theirs[name], model.judged.count)
        for name, value in model.classification.values.items()
    }


def _paired(model: Scored, baseline: Scored, measure: str, keys: list[str] | None = None) -> Difference:
    ours, theirs = model.measures[measure], baseline.measures[measure]
    chosen = list(ours) if keys is None else [key for key in keys if key in ours]
    return compare([ours[key] for key in chosen], [theirs[key] for key in chosen])


def _slice(kind: str, name: str, keys: list[str], model: Scored, baseline: Scored | None) -> Slice:
    def part(scored: Scored) -> Estimate:
        values = scored.measures[NDCG_10]
        return estimate([values[key] for key in keys if key in values])

    difference = _paired(model, baseline, NDCG_10, keys) if baseline else None
    return Slice(kind, name, part(model), part(baseline) if baseline else None, difference)


def _worst(model: Scored, baseline: Scored | None, data: Data) -> list[WorstQuery]:
    """Worst NDCG@10 first; of equals, those that the baseline answered best."""
    titles = {item.id: item.title for item in data.items}
    values = model.measures[NDCG_10]
    before = baseline.measures[NDCG_10] if baseline else {}
    keys = sorted(values, key=lambda key: (values[key], -before.get(key, 0.0), key))[:WORST]
    found = []
    for key in keys:
        judged = data.split.qrels[key]
        returned = list(model.run[key])[:_SHOWN_ITEMS]
        wanted = sorted(data.relevant[key], key=lambda item: (-judged[item], item))[:_SHOWN_ITEMS]
        found.append(
            WorstQuery(
                query=data.split.queries[key],
                ndcg=values[key],
                baseline_ndcg=before.get(key),
                returned=[Shown(titles[item], judged.get(item)) for item in returned],
                wanted=[Shown(titles[item], judged[item]) for item in wanted],
            )
        )
    return found
