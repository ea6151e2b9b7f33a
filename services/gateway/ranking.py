"""The final order: how the index's score and the re-ranker's become one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from services.gateway.ports import Candidate


class Ranked(NamedTuple):
    """A candidate in its final place. `score` never rises from one place to the next, but where diversity or
    exploration moved a candidate. The parts of the score are as `aisle.gateway.v1.ScoreBreakdown` has them, `None` for
    those that had no say."""

    candidate: Candidate
    score: float
    rerank_score: float | None = None
    user_score: float | None = None
    related_score: float | None = None
    popularity_score: float | None = None
    personalization: float | None = None
    exploration: bool = False


def unranked(candidates: Sequence[Candidate]) -> list[Ranked]:
    """The index's own order and scores, for when nothing re-ranks."""
    return [Ranked(candidate, candidate.score) for candidate in candidates]


def rank(candidates: Sequence[Candidate], rerank_scores: Sequence[float | None], weight: float) -> list[Ranked]:
    """All `candidates` (best first), re-ordered by `rerank_scores`, which cover the first of them.

    A scored candidate gets `1 + weight * rerank + (1 - weight) * retrieval`, where each part is scaled to 0…1 over the
    scored ones: the two scores have no common unit (a fused rank, a cosine, a logit), and a weighted sum of min-max
    scaled scores is the combination that keeps their distances without knowing it (Fox & Shaw 1994 with Lee 1997's
    scaling; Bruch et al. 2023 for lexical with semantic scores). The index keeps a say because a re-ranker reads
    an item's text only, and the index has also seen which exact words of the query an item has.

    The others follow in the index's order with scores of 0…1, which puts none of them above a scored one.
    Equal scores keep the index's order. `weight` is the re-ranker's share, 0 to 1.
    """
    scored = [(c, s) for c, s in zip(candidates, rerank_scores, strict=False) if s is not None]
    relevance = _scaled([s for _, s in scored])
    prior = _scaled([c.score for c, _ in scored])
    head = [
        Ranked(c, 1 + weight * r + (1 - weight) * p, s) for (c, s), r, p in zip(scored, relevance, prior, strict=True)
    ]
    head.sort(key=lambda ranked: -ranked.score)
    count = len(rerank_scores)
    rest = [c for c, s in zip(candidates, rerank_scores, strict=False) if s is None] + list(candidates[count:])
    tail = [Ranked(c, scaled) for c, scaled in zip(rest, _scaled([c.score for c in rest]), strict=True)]
    return head + tail


def personalised(ranked: Sequence[Ranked], likeness: Mapping[str, float], weight: float) -> list[Ranked]:
    """`ranked` (best first) re-ordered by `likeness`, the cosine of each item to the user, by item id.

    The score becomes `(1 - weight) * score + weight * likeness`, each scaled to 0...1 over the items; what a re-ranker
    scored stays above what it did not, as `rank` put it. `weight` is the user's share, 0 to 1.
    """
    scored = [one for one in ranked if one.rerank_score is not None]
    others = [one for one in ranked if one.rerank_score is None]
    floor = 1.0 if scored else 0.0
    return _personal(scored, likeness, weight, floor) + _personal(others, likeness, weight, 0.0)


def _personal(tier: Sequence[Ranked], likeness: Mapping[str, float], weight: float, floor: float) -> list[Ranked]:
    relevance = _scaled([one.score for one in tier])
    liked = _scaled([likeness.get(one.candidate.item_id, 0.0) for one in tier])
    personal = [
        one._replace(
            score=floor + r + weight * (u - r),
            user_score=likeness.get(one.candidate.item_id),
            personalization=weight * (u - r),
        )
        for one, r, u in zip(tier, relevance, liked, strict=True)
    ]
    return sorted(personal, key=lambda one: -one.score)


def _scaled(values: Sequence[float]) -> list[float]:
    """`values` mapped linearly to 0…1; all 1 where they do not differ."""
    if not values:
        return []
    low = min(values)
    span = max(values) - low
    return [(v - low) / span if span > 0 else 1.0 for v in values]
