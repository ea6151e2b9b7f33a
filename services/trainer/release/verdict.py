"""Whether a candidate may take the place of the live bundle, by what was measured."""

from dataclasses import dataclass, field

from services.trainer.release.policy import Policy
from services.trainer.release.report import Context, Report

HELD_OUT = "test"
"""The split that no job learns from or chooses by."""


@dataclass(frozen=True)
class Verdict:
    """`objections` speak against it, each with a remedy; `evidence` are the numbers it was decided on."""

    objections: list[str]
    evidence: dict[str, float] = field(default_factory=dict)


def by_report(report: Report, policy: Policy, candidate: str, live: str, remedy: str) -> Verdict:
    """By an evaluation of the one beside the other. `candidate` and `live`: versions; `remedy`: how to evaluate."""
    if report.model.version != candidate:
        measured = report.model.version or "a model folder"
        return Verdict([f"the evaluation is of {measured}, not of the candidate {candidate}: {remedy}"])
    if report.baseline is None or report.baseline.version != live:
        beside = "nothing" if report.baseline is None else report.baseline.version or "a model folder"
        return Verdict([f"the evaluation compares with {beside}, not with the live {live}: {remedy}"])
    unfit = _unfit(report.context, remedy)
    change = report.differences.get(policy.measure)
    if change is None:
        known = ", ".join(report.differences) or "none"
        missing = f"the evaluation has no {policy.measure} (it has: {known}): change `measure` of the policy"
        return Verdict([*unfit, missing])
    evidence = {
        policy.measure: report.model.measures[policy.measure].mean,
        f"{policy.measure} gain": change.mean,
        f"{policy.measure} p_value": change.p_value,
    }
    objections = []
    # At a gain of 0 that is asked for, standing still is not enough.
    if change.mean <= 0 or change.mean < policy.min_gain:
        objections.append(
            f"{policy.measure} changes by {change.mean:+.4f}; it must rise, by {policy.min_gain:g} or more (min_gain)"
        )
    elif change.p_value > policy.max_p_value:
        objections.append(
            f"{policy.measure} rises by {change.mean:+.4f}, which chance explains with p {change.p_value:.4f}, above "
            f"{policy.max_p_value:g} (max_p_value): evaluate on more queries"
        )
    return Verdict(unfit + objections + _worse_slices(report, policy), evidence)


def _unfit(context: Context, remedy: str) -> list[str]:
    """A report may be for a quick look, or of what the model has learnt by heart."""
    objections = []
    if context.split not in ("", HELD_OUT):
        objections.append(f"the evaluation is of the split {context.split}, not of {HELD_OUT}: {remedy}")
    if context.items is not None and context.catalogue is not None and context.items < context.catalogue:
        objections.append(
            f"the evaluation searched {context.items:,} of {context.catalogue:,} items, which makes every number "
            f"higher: without --most-items, {remedy}"
        )
    return objections


def _worse_slices(report: Report, policy: Policy) -> list[str]:
    guarded = policy.guarded
    return [
        f"queries of {each.kind} {each.name!r} get worse: NDCG@10 {change.mean:+.4f}, p {change.p_value:.4f} "
        f"(guarded.max_drop {guarded.max_drop:g})"
        for each in report.slices
        if each.kind in guarded.kinds
        and (change := each.difference) is not None
        and change.mean < -guarded.max_drop
        and change.p_value <= guarded.max_p_value
    ]
