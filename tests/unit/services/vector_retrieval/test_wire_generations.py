import pytest
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from services.vector_retrieval.generations import _parse
from services.vector_retrieval.schema import IndexType, VectorIndex
from services.vector_retrieval.wire_generations import new_generation_from_proto
from shared.errors import InvalidArgumentError

DEFAULT = VectorIndex(IndexType.HNSW, 32, 200, 128)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, DEFAULT),
        ({"hnsw_m": 8}, VectorIndex(IndexType.HNSW, 8, 200, 128)),
        (
            {"index_type": pb.INDEX_TYPE_HNSW, "hnsw_ef_construction": 2048},
            VectorIndex(IndexType.HNSW, 32, 2048, 128),
        ),
        ({"index_type": pb.INDEX_TYPE_FLAT}, VectorIndex(IndexType.FLAT, 32, 200, 128)),
        ({"index_type": pb.INDEX_TYPE_IVF_FLAT}, VectorIndex(IndexType.IVF_FLAT, 32, 200, 128)),
        ({"index_type": pb.INDEX_TYPE_IVF_FLAT, "ivf_nlist": 65_536}, VectorIndex(IndexType.IVF_FLAT, 32, 200, 65_536)),
    ],
)
def test_what_is_not_said_of_an_index_is_as_the_service_has_it(fields: dict[str, int], wanted: VectorIndex) -> None:
    request = pb.CreateGenerationRequest(model_version="m", dimensions=4, **fields)  # type: ignore[arg-type]
    assert new_generation_from_proto(request, DEFAULT) == ("m", 4, wanted)


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"index_type": 9}, ["index_type"]),
        ({"hnsw_m": 3}, ["hnsw_m"]),
        ({"ivf_nlist": 128}, ["ivf_nlist"]),
        ({"index_type": pb.INDEX_TYPE_HNSW, "ivf_nlist": 128}, ["ivf_nlist"]),
        ({"index_type": pb.INDEX_TYPE_FLAT, "hnsw_m": 32, "ivf_nlist": 128}, ["hnsw_m", "ivf_nlist"]),
        ({"index_type": pb.INDEX_TYPE_IVF_FLAT, "hnsw_ef_construction": 200}, ["hnsw_ef_construction"]),
        ({"index_type": pb.INDEX_TYPE_IVF_FLAT, "ivf_nlist": 0}, ["ivf_nlist"]),
        ({"index_type": pb.INDEX_TYPE_IVF_FLAT, "ivf_nlist": 65_537}, ["ivf_nlist"]),
    ],
)
def test_parameters_out_of_range_or_of_another_type_are_refused(fields: dict[str, int], at_fault: list[str]) -> None:
    request = pb.CreateGenerationRequest(model_version="m", dimensions=4, **fields)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError) as refused:
        new_generation_from_proto(request, DEFAULT)
    assert [v.field for v in refused.value.violations] == at_fault


def test_a_generation_from_before_index_types_is_of_hnsw() -> None:
    described = {
        "collection_name": "items_1",
        "properties": {"aisle.model_version": "m", "aisle.layout": "1"},
        "fields": [{"name": "vector", "params": {"dim": 4}}],
    }
    assert _parse(described, "items", "items").index_type is IndexType.HNSW
