"""What fine-tuning on a judged shop should bring (task "search"), and whether it did.

More than 1 is not enough: a ratio counts where chance alone would give its difference less than once in a hundred runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from services.trainer.evaluate.measures import NDCG_10
from services.trainer.evaluate.score import JUDGED_NDCG_10
from tests.benchmarks.figures import Figure, Goal
from tests.evaluation.measured import Measured

RECALL = "recall@100"
SURE = 0.01
"""The greatest p of a difference that counts."""
BEST_UNTRAINED = 1.2
"""The hybrid, to the better of words and of vectors as they came."""
GAIN_KEPT = 0.97
"""Of what its teacher adds to the hybrid, a distilled cross-encoder adds."""
TIME_KEPT = 1 / 3
"""Of its teacher's time, it takes at most."""


class Part(StrEnum):
    """Which part one way of searching plays."""

    WORDS = "BM25"
    """As `vector_retrieval` has it: the hybrid's half."""
    UNTRAINED = "the bi-encoder as it came"
    TUNED = "the fine-tuned bi-encoder"
    """The last one, where there are several."""
    HYBRID = "both"
    """Words, and the fine-tuned bi-encoder."""
    CROSS_ENCODER = "a cross-encoder over both"
    DISTILLED = "a small one distilled from it"


DISTILLATION = frozenset({Part.HYBRID, Part.CROSS_ENCODER, Part.DISTILLED})
"""What it takes to say how much of a teacher a student keeps."""


@dataclass(frozen=True, slots=True)
class _Above:
    ours: Part
    theirs: Part
    measure: str = NDCG_10


_ABOVE = (
    _Above(Part.TUNED, Part.UNTRAINED),
    _Above(Part.TUNED, Part.UNTRAINED, RECALL),
    _Above(Part.TUNED, Part.WORDS),
    _Above(Part.TUNED, Part.WORDS, RECALL),
    _Above(Part.HYBRID, Part.TUNED),
    _Above(Part.HYBRID, Part.WORDS),
    _Above(Part.CROSS_ENCODER, Part.HYBRID),
)


def reached(parts: Mapping[Part, Measured], where: str, times: Mapping[Part, float] | None = None) -> list[Figure]:
    """A figure for each goal whose parts were measured, of the shop that the models learnt. `times`: what re-ranking a
    query takes, in milliseconds."""
    found = [_above(goal, parts, where) for goal in _ABOVE if {goal.ours, goal.theirs} <= parts.keys()]
    if {Part.HYBRID, Part.WORDS, Part.UNTRAINED} <= parts.keys():
        single = max((parts[Part.WORDS], parts[Part.UNTRAINED]), key=lambda one: one.mean(NDCG_10))
        goal = Goal(f"goal, {where}: {NDCG_10}, {Part.HYBRID} ÷ the best untrained half", BEST_UNTRAINED)
        found.append(Figure(goal, parts[Part.HYBRID].times(single, NDCG_10), note=f"that is {single.name}"))
    encoders = [one.auc for part in (Part.UNTRAINED, Part.TUNED) if (one := parts.get(part)) and one.auc is not None]
    if (cross := parts.get(Part.CROSS_ENCODER)) and cross.auc is not None and encoders:
        goal = Goal(f"goal, {where}: AUC of judged pairs, {Part.CROSS_ENCODER} ÷ every bi-encoder", 1.0)
        found.append(Figure(goal, cross.auc / max(encoders), {"cross_encoder": cross.auc, "bi_encoders": encoders}))
    if parts.keys() >= DISTILLATION:
        found.append(_gain_kept(parts, where))
    if times:
        goal = Goal(f"goal, {where}: time, {Part.DISTILLED} ÷ its teacher", TIME_KEPT, "lower")
        ours, theirs = times[Part.DISTILLED], times[Part.CROSS_ENCODER]
        raw = {"distilled_p50_ms": ours, "teacher_p50_ms": theirs}
        found.append(Figure(goal, ours / theirs, raw, f"{ours:.1f} of {theirs:.1f} ms a query, in turns"))
    return found


def _gain_kept(parts: Mapping[Part, Measured], where: str) -> Figure:
    goal = Goal(f"goal, {where}: {NDCG_10} over the hybrid's, {Part.DISTILLED} ÷ its teacher", GAIN_KEPT)
    hybrid, teacher, student = (parts[part] for part in (Part.HYBRID, Part.CROSS_ENCODER, Part.DISTILLED))
    gain, learnt = (one.against(hybrid, NDCG_10).mean for one in (teacher, student))
    raw = {"teacher": gain, "distilled": learnt}
    if gain <= 0:
        return Figure(goal, None, raw, f"the teacher adds nothing: {gain:+.4f}")
    change = student.against(teacher, NDCG_10)
    return Figure(goal, learnt / gain, raw, f"{learnt:+.4f} of {gain:+.4f}; they differ with p {change.p_value:.4f}")


def carried_over(parts: Mapping[Part, Measured], where: str) -> list[Figure]:
    """The same of another shop, where no more is asked than that nothing is lost."""
    goal = _Above(Part.TUNED, Part.UNTRAINED, JUDGED_NDCG_10)
    return [_above(goal, parts, where, sure=False)] if {goal.ours, goal.theirs} <= parts.keys() else []


def _above(goal: _Above, parts: Mapping[Part, Measured], where: str, *, sure: bool = True) -> Figure:
    ours, theirs = parts[goal.ours], parts[goal.theirs]
    change = ours.against(theirs, goal.measure)
    wanted = f" (wanted: below {SURE:g})" if sure else ""
    return Figure(
        Goal(f"goal, {where}: {goal.measure}, {goal.ours} ÷ {goal.theirs}", 1.0),
        ours.times(theirs, goal.measure),
        {"difference": change.mean, "low": change.low, "high": change.high, "p_value": change.p_value},
        f"{change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}], p {change.p_value:.4f}{wanted}",
        besides=not sure or change.p_value < SURE,
    )
