"""Two ranked lists, by vector and by words, become one. Done here and not in the store, so that every home fuses
alike and callers see what each half said.

Ties go to the better of the two ranks, then to the smaller id: the same lists give the same order always.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

DEFAULT_RRF_K = 60
"""From Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet" (SIGIR 2009)."""
MAX_RRF_K = 1_000


_NO_COLUMNS: Mapping[str, Any] = MappingProxyType({})


class Found(NamedTuple):
    """An item as one half found it. `payload` is as the store returned it, not yet decoded.

    A tuple: a search makes hundreds of them, in a third of the time that frozen dataclasses take.
    """

    id: str
    score: float
    payload: str
    columns: Mapping[str, Any] = _NO_COLUMNS
    """What else the search asked the store for."""


@dataclass(slots=True)
class Candidate:
    """An item with what each half said of it; ranks count from 1."""

    id: str
    payload: str
    score: float = 0.0
    dense_score: float | None = None
    dense_rank: int | None = None
    lexical_score: float | None = None
    lexical_rank: int | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReciprocalRank:
    """score = Σ 1 / (k + rank) over the halves that found the item."""

    k: int = DEFAULT_RRF_K


@dataclass(frozen=True, slots=True)
class Weighted:
    """score = Σ weight · score / best score of the half. A half whose best is not positive adds nothing."""

    dense: float
    lexical: float


@dataclass(frozen=True, slots=True)
class Linear:
    """score = dense · cosine + lexical · BM25 score, both as they are: "a linear combination of unscaled scores".

    BM25 sums the evidence that each word adds, in a unit that does not depend on the query. Scaled by the query's best
    hit, as `Weighted` does, a list in which words tell much counts no more than one in which they tell nothing.

    An item that a half was not asked deep enough for counts there as the last hit does, which is the most it can be
    worth: measured as good as asking for its score, and better than counting it as nothing (Bruch, Gai and Ingber, "An
    Analysis of Fusion Functions for Hybrid Retrieval", TOIS 2023, on why).
    """

    dense: float
    lexical: float


Fusion: TypeAlias = ReciprocalRank | Weighted | Linear


def by_vector(found: Sequence[Found]) -> list[Candidate]:
    """Candidates of a search by vector alone."""
    return [
        Candidate(f.id, f.payload, f.score, dense_score=f.score, dense_rank=rank, columns=f.columns)
        for rank, f in enumerate(found, start=1)
    ]


def by_words(found: Sequence[Found]) -> list[Candidate]:
    """Candidates of a search by words alone."""
    return [
        Candidate(f.id, f.payload, f.score, lexical_score=f.score, lexical_rank=rank, columns=f.columns)
        for rank, f in enumerate(found, start=1)
    ]


def fuse(dense: Sequence[Found], lexical: Sequence[Found], how: Fusion, depth: int | None = None) -> list[Candidate]:
    """Both lists, each of which is ordered best first, as one. `depth` is how many hits each half was asked for:
    a shorter list holds all there is; so does any, where it is `None`."""
    merged = {candidate.id: candidate for candidate in by_vector(dense)}
    for candidate in by_words(lexical):
        known = merged.setdefault(candidate.id, candidate)
        known.lexical_score = candidate.lexical_score
        known.lexical_rank = candidate.lexical_rank
    match how:
        case ReciprocalRank(k):
            for one in merged.values():
                one.score = _reciprocal(one.dense_rank, k) + _reciprocal(one.lexical_rank, k)
        case Weighted():
            best = _best(dense), _best(lexical)
            for one in merged.values():
                one.score = how.dense * _share(one.dense_score, best[0]) + how.lexical * _share(
                    one.lexical_score, best[1]
                )
        case Linear():
            rest = _last(dense, depth), _last(lexical, depth)
            for one in merged.values():
                one.score = how.dense * _known(one.dense_score, rest[0]) + how.lexical * _known(
                    one.lexical_score, rest[1]
                )
    return sorted(merged.values(), key=_order)


def _order(candidate: Candidate) -> tuple[float, int, str]:
    ranks = [rank for rank in (candidate.dense_rank, candidate.lexical_rank) if rank is not None]
    return -candidate.score, min(ranks), candidate.id


def _reciprocal(rank: int | None, k: int) -> float:
    return 0.0 if rank is None else 1.0 / (k + rank)


def _best(found: Sequence[Found]) -> float:
    return max((f.score for f in found), default=0.0)


def _share(score: float | None, best: float) -> float:
    return 0.0 if score is None or best <= 0 else score / best


def _last(found: Sequence[Found], depth: int | None) -> float:
    """What an item that is not in the list is worth at most."""
    return found[-1].score if found and depth is not None and len(found) >= depth else 0.0


def _known(score: float | None, otherwise: float) -> float:
    return otherwise if score is None else score
