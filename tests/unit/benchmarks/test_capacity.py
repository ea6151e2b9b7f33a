"""The arithmetic of docs/scaling.md, and that the page says what it gives, of panels and settings that there are."""

import re
from dataclasses import replace

import pytest

from deploy.grafana.boards import BOARDS
from services.gateway.settings import GatewaySettings
from services.item_encoder.settings import ItemEncoderSettings
from services.query_encoder.settings import QueryEncoderSettings
from services.reranker.settings import RerankerSettings
from services.vector_retrieval.settings import VectorRetrievalSettings
from shared.settings import ServiceSettings
from tests.benchmarks import capacity
from tests.benchmarks.capacity import INPUTS, Inputs
from tests.benchmarks.figures import ROOT

PAGE = (ROOT / "docs" / "scaling.md").read_text()
SETTINGS: dict[str, type[ServiceSettings]] = {
    "GATEWAY": GatewaySettings,
    "ITEM_ENCODER": ItemEncoderSettings,
    "QUERY_ENCODER": QueryEncoderSettings,
    "RERANKER": RerankerSettings,
    "VECTOR_RETRIEVAL": VectorRetrievalSettings,
}
ROUND = Inputs(
    cpu_ms={"gateway": 3.0, "query_encoder": 1.2, "vector_retrieval": 6.0, "reranker": 12.0, "Milvus": 2.0},
    payload_bytes=256,
    events_per_s=10_000,
)
"""2,048 bytes an item."""


@pytest.mark.parametrize(
    ("service", "searches_per_s", "expected"),
    [
        ("gateway", 100, 2),  # 0.3 cores: two at least
        ("gateway", 1_000, 5),  # 3 cores of 0.6
        ("query_encoder", 10_000, 10),  # 12 cores of 1.2
        ("vector_retrieval", 10_000, 100),  # 60 cores of 0.6
        ("reranker", 1_001, 11),  # 12.012 cores of 1.2: rounded up
    ],
)
def test_replicas(service: str, searches_per_s: float, expected: int) -> None:
    assert capacity.replicas(ROUND, service, searches_per_s) == expected


def test_an_index_of_whole_segments() -> None:
    items = 2**19  # 1 GiB
    assert capacity.index_bytes(ROUND, items) == 2**30
    assert capacity.segments(ROUND, items) == 1
    assert capacity.segments(ROUND, items + 1) == 2


def test_query_nodes_for_memory_or_for_cores() -> None:
    items = 448 * 2**19  # 448 GiB: ten nodes of 44.8
    assert capacity.memory_nodes(ROUND, items) == 10
    assert capacity.nodes(ROUND, items, 1) == 10
    # 448 segments of 2 ms, 1,000 times: 896 cores of 9.6
    assert capacity.nodes(ROUND, items, 1_000) == 94
    assert capacity.nodes(ROUND, 1, 1) == 2


def test_a_run_takes_the_place_of_what_was_known() -> None:
    rows: list[dict[str, object]] = [
        {"name": "CPU a search: gateway", "value": 7.5},
        {"name": "CPU a search: Milvus", "value": None},
        {"name": "Recommend p50, one caller", "value": 3.0},
    ]
    assert capacity.measured(ROUND, rows) == replace(ROUND, cpu_ms={**ROUND.cpu_ms, "gateway": 7.5})


def test_the_page_has_the_tables() -> None:
    between = PAGE.partition("<!-- capacity -->")[2].partition("<!-- /capacity -->")[0]
    assert between.strip() == capacity.tables(INPUTS)


def test_the_page_names_panels_that_there_are() -> None:
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*", PAGE))
    assert named
    assert named <= {panel.title for board in BOARDS for panel in board.panels}


@pytest.mark.parametrize("setting", sorted(set(re.findall(r"AISLE_[A-Z_]+", PAGE))))
def test_the_page_names_settings_that_there_are(setting: str) -> None:
    service = next(name for name in SETTINGS if setting.startswith(f"AISLE_{name}_"))
    assert setting.removeprefix(f"AISLE_{service}_").lower() in SETTINGS[service].model_fields
