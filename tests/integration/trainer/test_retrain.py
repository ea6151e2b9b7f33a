"""From new judgements to a candidate, with a model of a few thousand weights."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from services.trainer.alone import alone
from services.trainer.base import open_base
from services.trainer.errors import JobError
from services.trainer.export import export
from services.trainer.options import ExportOptions
from services.trainer.prepare.job import PrepareOptions, prepare
from services.trainer.prepared import PreparedSet
from services.trainer.record import read_record
from services.trainer.retrain.job import retrain
from services.trainer.retrain.material import choose
from services.trainer.retrain.options import RetrainOptions
from services.trainer.run_options import MixedPrecision
from shared.bundles import Bundle, BundleError, Channel, Floors, Precision, Registry, load_bundle
from tests.support.judged_shop import write_files
from tests.support.registry import put

ANY = Floors(cosine_mean=0.9, cosine_min=0.8, overlap_at_10=0.0, ndcg_drop=1.0)


class Shop:
    """A shop whose judgements come in, and a registry with a live bundle that has learnt none."""

    def __init__(self, folder: Path, live: Bundle) -> None:
        self.folder = folder
        self.catalogue, every = write_files(folder)
        self.header, *self.judgements = every.read_text().splitlines()
        self.registry = put(str(folder / "registry"), Channel.LIVE, live)
        self.options = RetrainOptions(
            registry=self.registry.location, data=folder, work=folder / "work", least_new=10, batch=8, max_steps=4,
            evaluations=1, precision=Precision.FP32, floors=ANY, by="a test",
        )  # fmt: skip

    def prepared(self, queries: int) -> PreparedSet:
        """Of the judgements of so many queries, three each."""
        file = self.folder / f"{queries}.csv"
        file.write_text("\n".join([self.header, *self.judgements[: 3 * queries]]) + "\n")
        shares = {"train": 0.45, "valid": 0.1, "test": 0.45}
        out = self.folder / f"prepared-{queries}"
        return prepare(PrepareOptions(self.catalogue, out, judgements=[file], shares=shares))

    def retrain(self, queries: int, **changes: object) -> Bundle | None:
        return retrain(replace(self.options, data=self.prepared(queries).path, **changes))  # type: ignore[arg-type]


@pytest.fixture
def shop(tiny_base: Path, tmp_path: Path) -> Shop:
    live = ExportOptions(base=str(tiny_base), out=tmp_path / "live", max_query_tokens=16, floors=ANY)
    return Shop(tmp_path, export(live))


def promote(registry: Registry, bundle: Bundle) -> None:
    put(registry.location, Channel.LIVE, bundle)


def test_a_shop_goes_on_learning(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first = shop.retrain(32)
    assert first is not None
    assert first.manifest.max_query_tokens == 16, "queries are cut where they were"
    history = shop.registry.channel(Channel.CANDIDATE)
    assert history.version == first.version
    assert "0 replayed" in history.changes[-1].why
    assert shop.retrain(32) is None, "the candidate has learnt it"
    assert "nothing to do" in caplog.text

    promote(shop.registry, first)
    assert shop.retrain(32) is None, "so has the live one"
    assert shop.retrain(33, least_new=100) is None
    assert "are too few (--least-new 100)" in caplog.text
    assert shop.retrain(33, least_new=1, batch=500) is None
    assert "do not fill one batch of 500: lower --batch" in caplog.text
    second = shop.retrain(64)
    assert second is not None
    assert second.version != first.version
    change = shop.registry.channel(Channel.CANDIDATE).changes[-1]
    assert f"retrained from {first.version}" in change.why
    # What was forgotten is measured: on queries of then, and on those of since.
    kept = shop.registry.report(second.version)
    assert kept is not None
    told = json.loads(kept)
    assert (told["model"]["version"], told["baseline"]["version"]) == (second.version, first.version)
    assert {each["name"] for each in told["slices"] if each["kind"] == "age"} == {"old", "new"}


def test_a_candidate_has_vectors_as_short_as_the_live_ones(
    shop: Shop, tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    promote(
        shop.registry, export(ExportOptions(base=str(tiny_base), out=tmp_path / "short", dimensions=16, floors=ANY))
    )
    candidate = shop.retrain(32)
    assert candidate is not None
    assert candidate.manifest.dimensions == 16
    record = read_record(candidate.path.parent / "model")
    assert record is not None
    assert record.options["dimensions"] == [32, 16]
    assert "--dimensions" not in caplog.text
    sizes = json.loads((candidate.path / "config_sentence_transformers.json").read_text())
    assert "truncate_dim" not in sizes
    whole = export(ExportOptions(base=str(candidate.path), out=tmp_path / "whole", dimensions=32, floors=ANY))
    assert whole.manifest.dimensions == 32


def test_a_candidate_that_did_not_go_live_costs_no_data(shop: Shop) -> None:
    assert shop.retrain(32) is not None
    assert shop.retrain(64) is not None
    why = shop.registry.channel(Channel.CANDIDATE).changes[-1].why
    rows = shop.prepared(64).split("train").height
    assert f"{rows} new judgements, 0 replayed" in why


def test_a_run_that_was_cut_short_goes_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.trainer.retrain.job.export", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        shop.retrain(32)
    monkeypatch.undo()
    (model,) = (shop.folder / "work" / "runs").glob("*/model/model.safetensors")
    trained = model.stat().st_mtime_ns
    assert shop.retrain(32) is not None
    assert model.stat().st_mtime_ns == trained


def test_a_run_is_gone_on_with_by_whoever_comes_and_those_before_it_are_cleared(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.trainer.retrain.job.export", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    for queries in (32, 33):
        with pytest.raises(KeyboardInterrupt):
            shop.retrain(queries, by="one pod")
    monkeypatch.undo()
    runs = shop.folder / "work" / "runs"
    (left,) = runs.iterdir()
    bundle = shop.retrain(33, by="another")
    assert bundle is not None
    assert bundle.path.parent == left
    assert list(runs.iterdir()) == [left]


def test_two_runs_do_not_share_a_work_folder(shop: Shop) -> None:
    with alone(shop.options.work, "it"), pytest.raises(JobError, match=r"--work .* is another run's at the moment"):
        shop.retrain(32)


def test_the_first_bundle_goes_live_where_nothing_is(shop: Shop, tiny_base: Path, tmp_path: Path) -> None:
    empty, first = str(tmp_path / "empty"), str(tmp_path / "live")
    with pytest.raises(BundleError, match="points to no bundle yet"):
        shop.retrain(32, registry=empty, least_new=1_000)
    assert shop.retrain(32, registry=empty, first=first, least_new=1_000) is None
    live = Registry(empty).channel(Channel.LIVE)
    assert live.version == load_bundle(first).version
    assert shop.retrain(32, registry=empty, first=str(tiny_base), least_new=1_000) is None
    assert Registry(empty).channel(Channel.LIVE) == live, "it is live already"


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="says what a CPU says")
def test_a_gpu_s_precision_is_asked_for(shop: Shop) -> None:
    with pytest.raises(JobError, match="--mixed-precision fp16 needs a CUDA GPU"):
        shop.retrain(32, mixed_precision=MixedPrecision.FP16)


def test_a_set_with_nothing_to_learn_from_ends_well(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    prepare(PrepareOptions(shop.catalogue, shop.folder / "bare"))
    assert retrain(replace(shop.options, data=shop.folder / "bare")) is None
    assert "holds no judgements to learn from yet: nothing to do" in caplog.text


def test_averaging_stays_nearer_to_the_live_model(shop: Shop, tiny_base: Path) -> None:
    from safetensors.torch import load_file

    base = load_file(tiny_base / "model.safetensors")

    def moved(average: float) -> float:
        bundle = shop.retrain(32, average=average, work=shop.folder / f"work-{average}", learning_rate=1e-3)
        assert bundle is not None
        weights = load_file(bundle.path / "model.safetensors")
        return sum(float((weights[name] - base[name]).abs().sum()) for name in weights)

    whole = moved(1.0)
    assert moved(0.25) == pytest.approx(whole / 4, rel=0.01)
    with pytest.raises(JobError, match="--average"):
        shop.retrain(32, average=0.0)


def test_new_is_what_was_not_learnt_and_old_is_sampled_by_query(shop: Shop, tmp_path: Path) -> None:
    before, now = shop.prepared(32), shop.prepared(64)
    material = choose(now, before.path, replay=0.5, seed=0)
    learnt, train = before.split("train"), now.split("train")
    assert material.fresh.height == train.height - learnt.height
    assert not set(material.fresh["key"]) & set(learnt["key"])
    assert material.fresh.height / 2 <= material.replayed.height < material.fresh.height / 2 + 3
    sizes = dict(learnt.group_by("key").len().iter_rows())
    replayed = dict(material.replayed.group_by("key").len().iter_rows())
    assert all(replayed[key] == sizes[key] for key in replayed), "whole queries"
    assert choose(now, before.path, replay=0.5, seed=0).replayed.equals(material.replayed)
    assert choose(now, before.path, replay=0.0, seed=0).replayed.is_empty()

    # What is judged otherwise now is new, and is not replayed as it was.
    folder = tmp_path / "learnt"
    folder.mkdir()
    learnt.with_columns(pl.col("grade") + 1).write_parquet(folder / "train.parquet")
    changed = choose(now, folder, replay=1.0, seed=0)
    assert (changed.fresh.height, changed.replayed.height) == (train.height, 0)


def test_the_live_bundle_is_a_base_by_its_channel(shop: Shop) -> None:
    live = shop.registry.channel(Channel.LIVE).version
    assert open_base(f"registry:{shop.registry.location}#live").version == live
