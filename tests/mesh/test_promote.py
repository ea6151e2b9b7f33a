"""A registry's candidate goes live in a mesh that is searched all the time, and back: no search fails, none mixes
versions."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aisle.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from deploy.local import client
from deploy.local.certificates import Authority
from deploy.local.kinds import OPERATOR
from deploy.local.spec import DEFAULT_BUNDLE, ROOT
from shared.bundles import Channel, Registry, load_bundle
from tests.mesh.test_commands import Terminal, port_base, searching
from tests.support.default_model import need_default_model
from tests.support.second_bundle import shorter

pytestmark = pytest.mark.timeout(300)

POLL_S = "0.5"


def trainer(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "services.trainer", *arguments], cwd=ROOT, check=True, timeout=60)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    need_default_model()
    location = str(tmp_path / "registry")
    trainer("publish", "--registry", location, "--bundle", str(DEFAULT_BUNDLE))
    trainer("promote", "--registry", location)
    trainer("publish", "--registry", location, "--bundle", str(shorter(DEFAULT_BUNDLE, tmp_path / "model")))
    return Registry(location)


@pytest.fixture
def terminal(tmp_path: Path, registry: Registry) -> Iterator[Terminal]:
    (tmp_path / "shop.csv").write_text(
        "sku,name\n" + "".join(f"{n},{n} blue lamps\n" for n in range(40)) + "x,Red tile\n"
    )
    follow = {
        f"AISLE_{service}_{name}": value
        for service in ("QUERY_ENCODER", "ITEM_ENCODER", "RERANKER")
        for name, value in (("BUNDLE", f"registry:{registry.location}#live"), ("BUNDLE_POLL_S", POLL_S))
    }
    opened = Terminal(tmp_path, port_base(), follow)
    yield opened
    opened.run("down")


def test_a_candidate_goes_live_and_back_without_a_failed_or_mixed_search(
    terminal: Terminal, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = (load_bundle(f"registry:{registry.location}#{channel}").version for channel in reversed(Channel))
    assert old != new
    assert "no mesh is up" in terminal.run("promote", "--registry", registry.location, code=1)
    terminal.run("up", *terminal.catalogue, *terminal.ports)
    terminal.run("ingest", *terminal.catalogue)
    before = terminal.pids()

    with searching(f"127.0.0.1:{terminal.port_base}", callers=3) as answers:
        refused = terminal.run("promote", "--registry", registry.location, code=1)
        assert "no evaluation beside the live bundle" in refused
        assert registry.channel(Channel.LIVE).version == old
        said = terminal.run("promote", "--registry", registry.location, "--override", "a test")
        time.sleep(2)
    assert f"switched to {new}: query_encoder, item_encoder, reranker\n" in said
    assert "does not follow" not in said
    assert terminal.pids() == before, "nothing had to start again"

    assert [answer for answer in answers if not isinstance(answer, gateway_pb2.SearchResponse)] == []
    seen = Counter(map(told, answers))
    ordered = Counter(answer.info.model_versions.reranker for answer in answers)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(answers)} searches while a candidate went live, 0 failed: {dict(seen)}, by {dict(ordered)}\n"
        )
    assert set(seen) == {(old, old, ""), (old, old, "PREVIOUS_GENERATION"), (new, new, "")}
    assert set(ordered) == {old, new}
    assert answers[-1].info.model_versions.reranker == new
    assert {answer.results[0].item.id for answer in answers} == {"x"}
    # What is searched by the new model is also written by it.
    assert "41 rows are in the index" in terminal.run("ingest", *terminal.catalogue, "--restart")
    assert registry.channel(Channel.LIVE).changes[-1].override == "a test"
    # Done again, nothing is left to do.
    assert f"switched to {new}" in terminal.run("promote", "--registry", registry.location)

    with (terminal.folder / "shop.csv").open("a") as shop:
        shop.write("late,Green garden hose\n")
    terminal.run("ingest", *terminal.catalogue)
    with searching(f"127.0.0.1:{terminal.port_base}", callers=3) as answers:
        said = terminal.run("rollback", "--registry", registry.location)
        time.sleep(2)
    assert "going back to generation" in said
    assert "1 items encoded and loaded" in said
    assert f"switched to {old}: query_encoder, item_encoder, reranker\n" in said
    assert registry.channel(Channel.LIVE).version == old
    assert terminal.pids() == before
    assert [answer for answer in answers if not isinstance(answer, gateway_pb2.SearchResponse)] == []
    seen = Counter(map(told, answers))
    with capsys.disabled():
        sys.stdout.write(f"{len(answers)} searches while it was rolled back, 0 failed: {dict(seen)}\n")
    assert set(seen) == {(new, new, ""), (new, new, "PREVIOUS_GENERATION"), (old, old, "")}
    assert (told(answers[-1]), answers[-1].info.model_versions.reranker) == ((old, old, ""), old)
    assert {answer.results[0].item.id for answer in answers} == {"x"}
    with client.channel(f"127.0.0.1:{terminal.port_base}") as channel:
        found = gateway_pb2_grpc.GatewayStub(channel).Search(gateway_pb2.SearchRequest(query="green garden hose"))
    assert (found.results[0].item.id, told(found)) == ("late", (old, old, ""))
    assert "has no bundle that was live before" in terminal.run("rollback", "--registry", registry.location, code=1)


def test_behind_certificates_every_replica_switches_and_a_reranker_that_stays_is_told(
    terminal: Terminal, registry: Registry
) -> None:
    old, new = (load_bundle(f"registry:{registry.location}#{channel}").version for channel in reversed(Channel))
    del terminal.env["AISLE_RERANKER_BUNDLE"]
    terminal.run("up", *terminal.catalogue, *terminal.ports, "--mesh", "mtls", "--replicas", "query_encoder=2")
    terminal.run("ingest", *terminal.catalogue)
    operator = Authority(terminal.folder / "certificates").files(OPERATOR)
    with searching(f"127.0.0.1:{terminal.port_base}", shown=operator) as answers:
        said = terminal.run("promote", "--registry", registry.location, "--override", "a test")
        time.sleep(2)
    assert f"switched to {new}: query_encoder, query_encoder-2, item_encoder\n" in said
    assert f"reranker does not follow the registry: it orders what {new} finds by {old}" in said
    assert f"AISLE_RERANKER_BUNDLE='registry:{registry.location}#live'" in said
    assert [answer for answer in answers if not isinstance(answer, gateway_pb2.SearchResponse)] == []
    assert {told(answer) for answer in answers} >= {(old, old, ""), (new, new, "")}
    # The token vectors of new queries are of another model than the re-ranker's, which reads the words itself.
    assert {answer.info.model_versions.reranker for answer in answers} == {old}


def told(answer: Any) -> tuple[str, str, str]:
    """The versions of query and items that an answer names, and what it had to do without."""
    reasons = [gateway_pb2.DegradedReason.Name(each.reason) for each in answer.info.degraded]
    versions = answer.info.model_versions
    return versions.query_encoder, versions.index, ",".join(each.removeprefix("DEGRADED_REASON_") for each in reasons)
