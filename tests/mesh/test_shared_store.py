"""Several processes of the retrieval service over one Milvus server: without them nothing is found at all."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice

import pytest

from deploy.local.mesh import Mesh
from deploy.local.spec import MeshSpec
from shared.catalogue.generator import generate
from shared.rpc.items import item_to_proto
from tests.integration.vector_retrieval.servers import MilvusServer, installed
from tests.mesh import replicas
from tests.mesh.conftest import Shop, load
from tests.mesh.replicas import is_given_calls
from tests.mesh.search_load import ITEMS, outcomes, told, under_load
from tests.support.default_model import need_default_model

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not installed(), reason="there is no Milvus server: run `make milvus-server`"),
]

WHOLE = {"DEGRADED_REASON_LEXICAL_UNSUPPORTED"}
"""All there is to be had of a Milvus without BM25."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    need_default_model()
    folder = tmp_path_factory.mktemp("shared-store")
    milvus = MilvusServer(folder / "milvus")
    with ExitStack() as stack:
        stack.callback(milvus.end)
        milvus.start()
        env = {
            # As in test_replicas: little to do, and time enough for it on a machine that starts services meanwhile.
            "gateway": {"AISLE_GATEWAY_RERANK_COUNT": "0", "AISLE_GATEWAY_ENCODE_CAP_S": "5"},
            "vector_retrieval": {"AISLE_VECTOR_RETRIEVAL_URI": milvus.uri},
        }
        spec = MeshSpec.on_free_ports(index=folder / "unused", folder=folder, env=env, replicas={"vector_retrieval": 2})
        running = Shop(stack.enter_context(Mesh(spec)))
        stack.callback(running.close)
        load(running, [item_to_proto(item) for item in islice(generate(), ITEMS)])
        yield running


def test_a_rolling_restart_is_not_noticed(shop: Shop) -> None:
    with under_load(shop) as load:
        replicas.restart_each(shop, partial(is_given_calls, shop))
    told("rolling restart", load.answers)
    assert len(load.answers) > 100
    assert set(outcomes(load.answers)) == WHOLE


def test_each_replica_killed_in_turn_costs_no_call(shop: Shop) -> None:
    with under_load(shop) as load:
        replicas.kill_each(shop, load, partial(is_given_calls, shop))
    told("each killed in turn", load.answers)
    assert set(outcomes(load.answers)) == WHOLE
