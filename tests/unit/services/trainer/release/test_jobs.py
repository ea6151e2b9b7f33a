"""Publish, promote, roll back: as a person at a terminal uses them."""

import json
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from aisle.retrieval.v1 import vector_retrieval_pb2_grpc

from services.trainer import __main__ as command
from shared.bundles import Action, Bundle, BundleKind, Channel, Registry, load_bundle
from tests.support.tiny_bundle import make_bundle


def change(mean: float, p_value: float) -> dict[str, float]:
    return {"mean": mean, "low": mean, "high": mean, "p_value": p_value, "wins": 1, "losses": 1}


def report(
    model: Bundle,
    baseline: Bundle,
    gain: float = 0.1,
    p_value: float = 0.001,
    slices: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """As `evaluate` writes it; `slices`: (gain, p) by kind and name."""
    measures = {"ndcg@10": {"mean": 0.5, "low": 0.4, "high": 0.6, "queries": 9}}
    return {
        "context": {"split": "test", "items": 64, "catalogue": 64, "most_items": 0, "data": "0f"} | dict(context or {}),
        "model": {"name": "a", "version": model.version, "measures": measures, "classification": {}},
        "baseline": {"name": "b", "version": baseline.version, "measures": measures, "classification": {}},
        "differences": {"ndcg@10": change(gain, p_value)},
        "slices": [
            {"kind": name.split("/")[0], "name": name.split("/")[1], "difference": change(*values)}
            for name, values in (slices or {}).items()
        ],
    }


@dataclass
class Shop:
    """A registry with a live bundle and a better one beside it, and the jobs."""

    folder: Path
    first: Bundle
    second: Bundle
    capsys: pytest.CaptureFixture[str]

    @property
    def registry(self) -> Registry:
        return Registry(str(self.folder / "registry"))

    def run(self, job: str, *arguments: str, code: int = 0) -> str:
        done = command.main([job, "--registry", self.registry.location, *arguments])
        said = self.capsys.readouterr()
        assert done == code, said.err
        assert "Traceback" not in said.err
        return said.err

    def publish(self, bundle: Bundle, *arguments: str, code: int = 0) -> str:
        return self.run("publish", "--bundle", str(bundle.path), *arguments, code=code)

    def written(self, told: Mapping[str, Any]) -> str:
        file = self.folder / "evaluation.json"
        file.write_text(json.dumps(told))
        return str(file)

    def live(self) -> str | None:
        return self.registry.channel(Channel.LIVE).version


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    first, second = (
        make_bundle(tmp_path / name, BundleKind.BI_ENCODER, max_item_tokens=tokens)
        for name, tokens in (("first", 48), ("second", 24))
    )
    made = Shop(tmp_path, first, second, capsys)
    made.publish(first)
    made.run("promote")
    return made


@contextmanager
def an_index(version: str) -> Iterator[str]:
    """A gRPC server that says what `vector_retrieval` would of an index with vectors of `version`."""

    class Index(vector_retrieval_pb2_grpc.VectorRetrievalServicer):
        def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
            return pb.GetStatusResponse(model_version=version)

    server = grpc.server(futures.ThreadPoolExecutor(1))
    vector_retrieval_pb2_grpc.add_VectorRetrievalServicer_to_server(Index(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_the_first_bundle_goes_live_by_itself(shop: Shop) -> None:
    assert shop.live() == shop.first.version
    loaded = load_bundle(f"registry:{shop.registry.location}#live")
    assert loaded.manifest == shop.first.manifest


def test_publishing_twice_is_publishing_once(shop: Shop) -> None:
    shop.publish(shop.second)
    shop.publish(shop.second)
    shop.publish(shop.first)
    candidates = shop.registry.channel(Channel.CANDIDATE).changes
    assert [each.version for each in candidates] == [shop.first.version, shop.second.version]
    assert shop.live() == shop.first.version


def test_a_damaged_bundle_is_not_published(shop: Shop) -> None:
    shop.second.tokenizer_path.write_text("{}")
    assert "tokenizer.json is not what bundle.json says" in shop.publish(shop.second, code=1)
    assert not shop.registry.holds(shop.second.version)


def test_a_model_of_another_kind_needs_a_registry_of_its_own(shop: Shop, tmp_path: Path) -> None:
    cross = make_bundle(tmp_path / "cross", BundleKind.CROSS_ENCODER)
    assert "a registry of its own" in shop.publish(cross, code=1)


def test_a_better_bundle_goes_live_with_the_numbers_that_allowed_it(shop: Shop) -> None:
    shop.publish(shop.second, "--report", shop.written(report(shop.second, shop.first)))
    with an_index(shop.second.version) as index:
        shop.run("promote", "--index", index, "--by", "ada", "--why", "spring")
        assert shop.live() == shop.second.version
        shop.run("promote", "--index", index)
    *_, last = shop.registry.channel(Channel.LIVE).changes
    assert (last.action, last.before, last.by, last.why) == (Action.PROMOTE, shop.first.version, "ada", "spring")
    assert last.evaluation == {"ndcg@10": 0.5, "ndcg@10 gain": 0.1, "ndcg@10 p_value": 0.001}
    assert (last.override, last.objections) == ("", ())
    assert len(shop.registry.channel(Channel.LIVE).changes) == 2, "promoted twice, moved once"


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"gain": 0.0}, "it must rise"),
        ({"gain": -0.1}, "it must rise"),
        ({"gain": 0.01, "p_value": 0.2}, "chance explains with p 0.2000"),
        ({"slices": {"length/1 word": (-0.05, 0.001)}}, "queries of length '1 word' get worse"),
    ],
)
def test_what_is_not_better_is_refused(shop: Shop, told: dict[str, Any], why: str) -> None:
    shop.publish(shop.second)
    file = shop.written(report(shop.second, shop.first, **told))
    said = shop.run("promote", "--report", file, "--no-index", code=1)
    assert why in said
    assert "--override" in said
    assert shop.live() == shop.first.version


@pytest.mark.parametrize(
    "slices",
    [
        {"length/1 word": (-0.05, 0.2)},
        {"length/1 word": (-0.005, 0.0)},
        {"season/winter": (-0.5, 0.0)},
    ],
    ids=["by chance", "by little", "not guarded"],
)
def test_a_slice_that_may_fall_does_not_refuse(shop: Shop, slices: dict[str, Any]) -> None:
    shop.publish(shop.second)
    shop.run("promote", "--report", shop.written(report(shop.second, shop.first, slices=slices)), "--no-index")
    assert shop.live() == shop.second.version


def test_every_objection_is_told_and_an_override_leaves_its_trace(shop: Shop) -> None:
    shop.publish(shop.second)
    bad = shop.written(report(shop.second, shop.first, gain=-0.2, slices={"category/Beds": (-0.3, 0.0)}))
    said = shop.run("promote", "--report", bad, "--no-index", code=1)
    assert "it must rise" in said
    assert "Beds" in said
    shop.run("promote", "--report", bad, "--no-index", "--override", "the old one is broken")
    *_, last = shop.registry.channel(Channel.LIVE).changes
    assert last.version == shop.second.version
    assert last.override == "the old one is broken"
    assert len(last.objections) == 2


@pytest.mark.parametrize(
    ("context", "why"),
    [
        ({"split": "train"}, "is of the split train, not of test"),
        ({"split": "valid"}, "is of the split valid, not of test"),
        ({"items": 1_000, "catalogue": 54_667, "most_items": 1_000}, "searched 1,000 of 54,667 items"),
    ],
)
def test_what_was_measured_on_too_easy_a_task_is_refused(shop: Shop, context: dict[str, Any], why: str) -> None:
    shop.publish(shop.second)
    file = shop.written(report(shop.second, shop.first, context=context))
    said = shop.run("promote", "--report", file, "--no-index", code=1)
    assert why in said
    assert "evaluate --model registry:" in said
    assert shop.live() == shop.first.version
    shop.run("promote", "--report", file, "--no-index", "--override", "a small shop's first week")
    *_, last = shop.registry.channel(Channel.LIVE).changes
    assert last.override == "a small shop's first week"
    assert len(last.objections) == 1
    assert why in last.objections[0]


def test_both_easy_tasks_are_told_beside_what_else_speaks_against_it(shop: Shop) -> None:
    shop.publish(shop.second)
    easy = {"split": "train", "items": 1, "most_items": 1}
    said = shop.run(
        "promote", "--report", shop.written(report(shop.second, shop.first, gain=0, context=easy)), "--no-index", code=1
    )
    assert all(why in said for why in ("the split train", "searched 1 of 64 items", "it must rise"))


@pytest.mark.parametrize(
    "context",
    [{"items": 64, "catalogue": 64, "most_items": 100}, {"split": "test", "items": 5}, {}, None],
    ids=["as many as there are", "before the catalogue's size was told", "nothing told", "no context"],
)
def test_a_report_that_tells_of_no_easy_task_is_taken(shop: Shop, context: dict[str, Any] | None) -> None:
    shop.publish(shop.second)
    told = report(shop.second, shop.first) | {"context": context}
    if context is None:
        del told["context"]
    shop.run("promote", "--report", shop.written(told), "--no-index")
    assert shop.live() == shop.second.version


def test_an_override_that_was_not_needed_is_no_trace(shop: Shop) -> None:
    shop.publish(shop.second, "--report", shop.written(report(shop.second, shop.first)))
    shop.run("promote", "--no-index", "--override", "to be sure")
    assert shop.registry.channel(Channel.LIVE).changes[-1].override == ""


def test_an_evaluation_of_something_else_proves_nothing(shop: Shop) -> None:
    shop.publish(shop.second)
    of_another = shop.written(report(shop.first, shop.first))
    assert "not of the candidate" in shop.run("promote", "--report", of_another, "--no-index", code=1)
    beside_another = shop.written(report(shop.second, shop.second))
    said = shop.run("promote", "--report", beside_another, "--no-index", code=1)
    assert f"not with the live {shop.first.version}" in said
    assert "evaluate --model registry:" in said
    shop.written(report(shop.first, shop.first))
    assert "not of bundle" in shop.publish(shop.second, "--report", of_another, code=1)


def test_without_an_evaluation_an_encoder_is_not_promoted(shop: Shop) -> None:
    shop.publish(shop.second)
    assert "no evaluation beside the live bundle" in shop.run("promote", "--no-index", code=1)


def test_checking_changes_nothing(shop: Shop) -> None:
    shop.publish(shop.second)
    shop.run("promote", "--check", code=1)
    shop.run("promote", "--check", "--report", shop.written(report(shop.second, shop.first)))
    assert shop.live() == shop.first.version


def test_an_encoder_goes_live_after_its_index(shop: Shop) -> None:
    shop.publish(shop.second, "--report", shop.written(report(shop.second, shop.first)))
    assert "--index HOST:PORT" in shop.run("promote", code=1)
    with an_index(shop.first.version) as index:
        said = shop.run("promote", "--index", index, code=1)
        assert "services.vector_retrieval.reindex" in said
        assert "#candidate" in said
        shop.run("promote", "--index", index, "--override", "an index is no matter of opinion", code=1)
    assert shop.live() == shop.first.version
    assert "--index 127.0.0.1:1" in shop.run("promote", "--index", "127.0.0.1:1", code=1)


def test_nothing_to_promote_is_said(tmp_path: Path, shop: Shop) -> None:
    assert command.main(["promote", "--registry", str(tmp_path / "empty")]) == 1
    assert "publish a bundle first" in shop.capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("min_gian = 1", "min_gian"),
        ("min_gain = -1", "min_gain"),
        ('max_p_value = "low"', "max_p_value"),
        ("[guarded]\nmax_drop = 2", "guarded.max_drop"),
        ("measure = ", "policy.toml"),
        ('measure = "map"', "has no map (it has: ndcg@10)"),
        ("min_gain = 0.2", "by 0.2 or more"),
    ],
)
def test_a_policy_that_will_not_do_is_told_by_its_key(shop: Shop, text: str, fault: str) -> None:
    shop.publish(shop.second, "--report", shop.written(report(shop.second, shop.first)))
    policy = shop.folder / "policy.toml"
    policy.write_text(text)
    assert fault in shop.run("promote", "--no-index", "--policy", str(policy), code=1)
    assert shop.live() == shop.first.version


def test_a_policy_decides(shop: Shop) -> None:
    bad = report(shop.second, shop.first, gain=0.01, p_value=0.5, slices={"length/1 word": (-0.5, 0.0)})
    shop.publish(shop.second, "--report", shop.written(bad))
    assert "no such file" in shop.run("promote", "--no-index", "--policy", "/nowhere.toml", code=1)
    policy = shop.folder / "policy.toml"
    policy.write_text("max_p_value = 0.6\n[guarded]\nkinds = []\n")
    shop.run("promote", "--no-index", "--policy", str(policy))
    assert shop.live() == shop.second.version


def test_rollback_goes_back_step_by_step(shop: Shop, tmp_path: Path) -> None:
    third = make_bundle(tmp_path / "third", BundleKind.BI_ENCODER, max_item_tokens=12)
    for bundle in (shop.second, third):
        shop.publish(bundle)
        shop.run("promote", "--no-index", "--override", "a test")
    assert "re-index first with an item encoder" in shop.run("rollback", code=1)
    with an_index(third.version) as index:
        assert "re-index first with an item encoder" in shop.run("rollback", "--index", index, code=1)
    with an_index(shop.second.version) as index:
        shop.run("rollback", "--index", index, "--by", "ada", "--why", "complaints")
    assert shop.live() == shop.second.version
    last = shop.registry.channel(Channel.LIVE).changes[-1]
    assert (last.action, last.by, last.why) == (Action.ROLLBACK, "ada", "complaints")
    shop.run("rollback", "--no-index")
    assert shop.live() == shop.first.version
    assert "no bundle that was live before" in shop.run("rollback", "--no-index", code=1)


def test_after_a_rollback_the_candidate_may_go_live_again(shop: Shop) -> None:
    shop.publish(shop.second, "--report", shop.written(report(shop.second, shop.first)))
    shop.run("promote", "--no-index")
    shop.run("rollback", "--no-index", "--by", "ada", "--why", "complaints")
    # What speaks for it has not changed: a job that runs every night must not bring it back.
    said = shop.run("promote", "--no-index", code=1)
    assert "rolled back on" in said
    assert "by ada: complaints" in said
    shop.run("promote", "--no-index", "--override", "it was not the model")
    assert shop.live() == shop.second.version
    shop.run("rollback", "--no-index")
    assert shop.live() == shop.first.version


def test_the_history_is_shown(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    shop.publish(shop.second, "--by", "ada")
    shop.run("promote", "--no-index", "--override", "they asked for it")
    caplog.clear()
    shop.run("history")
    assert f"live: {shop.second.version}" in caplog.text
    assert "by ada" in caplog.text
    assert "overridden (they asked for it): no evaluation" in caplog.text


def test_a_reranker_goes_live_as_an_encoder_does_but_asks_no_index(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (
        make_bundle(tmp_path / name, BundleKind.CROSS_ENCODER, max_item_tokens=tokens)
        for name, tokens in (("live", 48), ("next", 24))
    )
    shop = Shop(tmp_path, first, second, capsys)
    shop.publish(first)
    shop.run("promote")
    shop.publish(second)
    assert "--retriever" in shop.run("promote", code=1)
    worse = report(second, first, slices={"length/1 word": (-0.2, 0.001)})
    assert "'1 word' get worse" in shop.run("promote", "--report", shop.written(worse), code=1)
    assert shop.live() == first.version
    shop.run("promote", "--report", shop.written(report(second, first)))
    assert shop.live() == second.version
