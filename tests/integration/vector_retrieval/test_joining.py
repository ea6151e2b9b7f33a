"""Callers who share a search of the store, alike on every home."""

import asyncio

import numpy as np
import pytest
from prometheus_client import REGISTRY

from tests.integration.vector_retrieval.shop import DIMENSIONS, Shop, query

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_callers_who_share_a_search_of_the_store_have_their_own_answers(shop: Shop) -> None:
    rng = np.random.default_rng(2)
    await shop.upsert(*(shop.item(str(i)) for i in range(300)), vectors=rng.normal(size=(300, DIMENSIONS)))
    asked = rng.normal(size=(40, DIMENSIONS))
    limits = [(3, 20)[at % 2] for at in range(len(asked))]
    alone = [await shop.search(embeddings=query(v), limit=n) for v, n in zip(asked, limits, strict=True)]
    before = _searches()
    together = await asyncio.gather(
        *(shop.search(embeddings=query(v), limit=n) for v, n in zip(asked, limits, strict=True))
    )
    assert _searches() - before < len(asked)
    for one, shared, limit in zip(alone, together, limits, strict=True):
        assert shop.names(shared) == shop.names(one)
        assert len(shared.candidates[0].hits) == limit
        assert [hit.score for hit in shared.candidates[0].hits] == pytest.approx(
            [hit.score for hit in one.candidates[0].hits], abs=1e-5
        )


def _searches() -> float:
    """Of the store, so far."""
    return REGISTRY.get_sample_value("aisle_retrieval_search_queries_count") or 0.0
