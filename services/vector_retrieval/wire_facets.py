"""The facets of aisle.retrieval.v1 ↔ the domain."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import isfinite

from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.vector_retrieval import facets
from services.vector_retrieval.facets import Counts, Facet, PriceBucket, Value
from shared.errors import FieldViolation

MAX_FACET_DEPTH = 1_000


def facets_from_proto(request: pb.SearchRequest, found: list[FieldViolation]) -> list[Facet]:
    """What to count; adds to `found` what is wrong with it."""
    if request.facet_depth > MAX_FACET_DEPTH:
        found.append(FieldViolation("facet_depth", f"must be at most {MAX_FACET_DEPTH:,}"))
    if len(request.facets) > facets.MAX_FACETS:
        found.append(FieldViolation("facets", f"must have at most {facets.MAX_FACETS} entries"))
        return []
    for index, asked in enumerate(request.facets):
        found.extend(_violations(asked, f"facets[{index}]"))
    return [
        Facet(asked.field, tuple(asked.bounds) or facets.DEFAULT_BOUNDS, asked.limit or facets.DEFAULT_VALUES)
        for asked in request.facets
    ]


def _violations(asked: pb.FacetRequest, at: str) -> Iterator[FieldViolation]:
    if asked.field not in facets.COLUMNS:
        yield FieldViolation(f"{at}.field", f"must be one of {', '.join(sorted(facets.COLUMNS))}")
    if asked.limit > facets.MAX_VALUES:
        yield FieldViolation(f"{at}.limit", f"must be at most {facets.MAX_VALUES:,}")
    if not asked.bounds:
        return
    if asked.field != "price":
        yield FieldViolation(f"{at}.bounds", "can be given for price alone")
    if len(asked.bounds) > facets.MAX_BOUNDS:
        yield FieldViolation(f"{at}.bounds", f"must have at most {facets.MAX_BOUNDS} entries")
    if not all(isfinite(bound) for bound in asked.bounds) or any(low >= high for low, high in pairwise(asked.bounds)):
        yield FieldViolation(f"{at}.bounds", "must be finite and ascend")


def facets_to_proto(asked: Sequence[Facet], counted: Sequence[Counts] | None) -> Iterator[pb.Facet]:
    """The wire's form of what was counted; `None` where nothing was searched."""
    for index, facet in enumerate(asked):
        yield pb.Facet(
            field=facet.field,
            counts=[_count(value, number) for value, number in (counted[index] if counted is not None else ())],
        )


def _count(value: Value, number: int) -> pb.FacetCount:
    if isinstance(value, PriceBucket):
        bucket = pb.PriceBucket(currency_code=value.currency, at_least=value.at_least, less_than=value.less_than)
        return pb.FacetCount(price=bucket, count=number)
    if isinstance(value, tuple):
        return pb.FacetCount(category=pb.CategoryValue(path=value), count=number)
    return pb.FacetCount(text=value, count=number)
