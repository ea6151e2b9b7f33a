import pytest

from services.vector_retrieval.generations import Generation
from services.vector_retrieval.halves import _how_far
from services.vector_retrieval.schema import IndexType


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
