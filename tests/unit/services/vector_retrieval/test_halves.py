from typing import Any

import numpy as np
import pytest

from services.vector_retrieval.capabilities import probe
from services.vector_retrieval.fusion import Found
from services.vector_retrieval.generations import Generation
from services.vector_retrieval.halves import Ask, Halves, _how_far
from services.vector_retrieval.schema import IndexType, Vectors
from services.vector_retrieval.settings import VectorRetrievalSettings


@pytest.mark.parametrize(
    ("index_type", "nlist", "ef", "parameters"),
    [
        (IndexType.HNSW, 0, 256, {"ef": 256}),
        (IndexType.FLAT, 0, 256, {}),
        (IndexType.IVF_FLAT, 1024, 256, {"nprobe": 128}),
        (IndexType.IVF_FLAT, 128, 256, {"nprobe": 46}),
        (IndexType.IVF_FLAT, 1024, 32_768, {"nprobe": 1024}),
        (IndexType.IVF_FLAT, 1, 16, {"nprobe": 1}),
    ],
)
def test_each_index_is_told_in_its_own_terms_how_far_to_look(
    index_type: IndexType, nlist: int, ef: int, parameters: dict[str, int]
) -> None:
    generation = Generation("1", "items_1", "m", 4, lexical=False, index_type=index_type, ivf_nlist=nlist)
    assert _how_far(generation, ef) == parameters


@pytest.mark.parametrize(
    ("version", "expression", "ef"),
    [
        ("v2.6.4", "", 256),
        ("v2.6.4", "price < 1", 8 * 256),
        ("milvus_lite-3.2.2", "", 256),
        ("milvus_lite-3.2.2", "price < 1", 16 * 256),
    ],
)
async def test_a_walk_is_wider_under_a_filter_by_what_the_store_needs(
    version: str, expression: str, ef: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked = []

    async def nearest(vectors: Vectors, ask: Ask, ef: int) -> list[list[Found]]:
        walked.append(ef)
        return [[Found("a", 1.0, "")]]

    nothing: Any = None
    halves = Halves(nothing, nothing, nothing, VectorRetrievalSettings(hnsw_ef=256))
    monkeypatch.setattr(halves, "_nearest", nearest)
    generation = Generation("1", "items_1", "m", 4, lexical=False, index_type=IndexType.HNSW, ivf_nlist=0)
    ask = Ask(
        generation, probe(version), expression=expression, depth=1, columns=[], level="", exact=False, grouped=False
    )
    await halves.by_vector(np.ones((1, 4), np.float32), ask)
    assert walked == [ef]
