"""The job's road, against an index and an encoder that are plain Python."""

import io
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from services.vector_retrieval.clients import Encoded, IndexType, Known, KnownRoles, Listed, Seen
from services.vector_retrieval.progress import Progress
from services.vector_retrieval.reindex import Reindex, ReindexSettings, Summary
from shared.errors import FailedPreconditionError, UnavailableError, VersionMismatchError


class FakeIndex:
    """Items by generation: `old`, which is live, and `new`."""

    def __init__(self, items: int) -> None:
        self.items = {"old": {f"i{n:03}" for n in range(items)}, "new": set[str]()}
        self.live, self.building, self.previous = "old", "", ""
        self.versions = {"old": "1", "new": "2"}
        self.largest = self.promotions = 0
        self.late: list[str] = []
        self.recall = 1.0
        self.refuse: set[str] = set()
        self.index_type = ""

    def known(self, name: str) -> Known | None:
        return Known(name, self.versions[name], len(self.items[name])) if name else None

    async def roles(self) -> KnownRoles:
        return KnownRoles(self.known(self.live), self.known(self.building), self.known(self.previous))

    async def create(self, model_version: str, dimensions: int, index_type: IndexType) -> Known:
        self.index_type = index_type
        self.building, self.versions["new"] = "new", model_version
        return Known("new", model_version, 0)

    async def lacking(self, target: str, source: str, size: int, token: str) -> Listed:
        ids = sorted(i for i in self.items[source or self.live] - self.items[target] if i > token)
        items = [SimpleNamespace(id=i) for i in ids[:size]]
        return Listed(items, ids[size - 1] if len(ids) > size else "", len(items))

    async def load(self, target: str, encoded: Encoded) -> tuple[int, dict[str, str]]:
        self.largest = max(self.largest, len(encoded.items))
        ids = {item.id for item in encoded.items}
        self.items[target] |= ids - self.refuse
        return len(ids - self.refuse), dict.fromkeys(ids & self.refuse, "too large")

    async def verify(self, name: str, min_recall: float) -> Seen:
        return Seen(len(self.items[self.live] - self.items[name]), self.recall)

    async def promote(self, name: str, min_recall: float, *, force: bool) -> None:
        self.promotions += 1
        if self.late:
            self.items[self.live].add(self.late.pop())
        if self.items[self.live] - self.items[name] and not force:
            raise FailedPreconditionError("behind", reason="GENERATION_BEHIND")
        self.building = "" if name == self.building else self.building
        self.previous, self.live = self.live, name


class FakeEncoder:
    def __init__(self, version: str = "2") -> None:
        self.version = self.answers = version
        self.failing: set[str] = set()
        self.outages = 0
        self.encoded = 0

    async def model(self) -> tuple[str, int]:
        return self.version, 4

    async def encode(self, items: Sequence[Any]) -> Encoded:
        if self.outages:
            self.outages -= 1
            raise UnavailableError("item_encoder", retry_after_s=0.01)
        self.encoded += len(items)
        kept = [item for item in items if item.id not in self.failing]
        return Encoded(kept, None, self.answers, {i.id: "no text" for i in items if i.id in self.failing})


async def reindex(index: FakeIndex, encoder: FakeEncoder, **options: Any) -> tuple[Summary, str]:
    out = io.StringIO()
    settings = ReindexSettings(batch_items=8, sweep_s=0, **options)
    return await Reindex(index, encoder, settings, Progress(out)).run(), out.getvalue()


async def test_all_items_go_over_in_batches_and_late_writes_too() -> None:
    index, encoder = FakeIndex(50), FakeEncoder()
    index.late = ["z1", "z2"]
    summary, out = await reindex(index, encoder)
    assert (index.live, index.largest, index.promotions) == ("new", 8, 3)
    assert (summary.loaded, summary.failed) == (52, {})
    assert index.items["new"] == index.items["old"]
    assert "generation new of model 2 is live" in out
    assert index.index_type == "hnsw"


async def test_the_new_generation_is_of_the_index_type_asked_for() -> None:
    index = FakeIndex(3)
    await reindex(index, FakeEncoder(), index_type="flat")
    assert index.index_type == "flat"
    with pytest.raises(SystemExit, match="index_type"):
        ReindexSettings.parse(["--index-type", "ivf"])


async def test_a_run_goes_on_where_the_last_one_ended() -> None:
    index, encoder = FakeIndex(50), FakeEncoder()
    index.building = "new"
    index.items["new"] = {f"i{n:03}" for n in range(30)}
    await reindex(index, encoder)
    assert encoder.encoded == 20


async def test_after_the_promotion_only_what_came_late_is_left() -> None:
    index, encoder = FakeIndex(3), FakeEncoder()
    await reindex(index, encoder)
    index.items["old"].add("late")
    summary, out = await reindex(index, encoder)
    assert "is of model 2 already" in out
    assert (summary.loaded, "late" in index.items["new"]) == (1, True)


async def test_with_the_model_before_it_goes_back_and_encodes_only_what_came_since() -> None:
    index, encoder = FakeIndex(50), FakeEncoder("1")
    await reindex(index, FakeEncoder("2"))
    index.items["new"] |= {"a1", "a2"}
    index.late = ["z1"]
    summary, out = await reindex(index, encoder)
    assert "going back to generation old of model 1, which has 50 items" in out
    assert (index.live, index.previous, index.building, encoder.encoded) == ("old", "new", "", 3)
    assert (summary.generation, summary.loaded) == ("old", 3)
    assert index.items["old"] == index.items["new"]


async def test_a_generation_that_is_being_built_is_in_nobodys_way_back() -> None:
    index = FakeIndex(5)
    await reindex(index, FakeEncoder("2"))
    index.items["third"], index.versions["third"], index.building = set(), "3", "third"
    await reindex(index, FakeEncoder("1"))
    assert (index.live, index.building) == ("old", "third")
    # Begun with the model before, it is what was asked for.
    index.versions["third"] = "2"
    _, out = await reindex(index, FakeEncoder("2"))
    assert "going on with generation third" in out
    assert index.live == "third"


async def test_of_two_generations_of_one_model_the_live_one_stays() -> None:
    index = FakeIndex(5)
    await reindex(index, FakeEncoder("2"))
    index.versions["old"] = "2"
    _, out = await reindex(index, FakeEncoder("2"))
    assert "is of model 2 already" in out
    assert index.live == "new"


async def test_items_that_cannot_go_over_stop_the_promotion_unless_forced() -> None:
    index, encoder = FakeIndex(20), FakeEncoder()
    encoder.failing, index.refuse = {"i003"}, {"i004"}
    with pytest.raises(FailedPreconditionError, match=r"2 items cannot be brought over .*no text.*too large.*--force"):
        await reindex(index, encoder)
    assert index.live == "old"
    summary, _ = await reindex(index, encoder, force=True)
    assert (index.live, sorted(summary.failed)) == ("new", ["i003", "i004"])


async def test_a_busy_encoder_is_waited_for_and_one_of_another_model_is_not() -> None:
    index, encoder = FakeIndex(5), FakeEncoder()
    encoder.outages = 2
    _, out = await reindex(index, encoder)
    assert "waiting: item_encoder is not available" in out
    index, encoder = FakeIndex(5), FakeEncoder()
    encoder.answers = "3"
    with pytest.raises(VersionMismatchError):
        await reindex(index, encoder)
    with pytest.raises(FailedPreconditionError, match="is being built for model '2' and the encoder runs '3'"):
        await reindex(index, FakeEncoder("3"))


async def test_a_generation_that_finds_badly_is_not_promoted() -> None:
    index = FakeIndex(5)
    index.recall = 0.5
    with pytest.raises(FailedPreconditionError, match=r"not fit to be live: recall is 0\.500, below 0\.95"):
        await reindex(index, FakeEncoder())
    assert index.promotions == 0


async def test_force_leaves_items_behind_but_does_not_promote_what_finds_badly() -> None:
    index, encoder = FakeIndex(20), FakeEncoder()
    encoder.failing, index.recall = {"i003"}, 0.5
    with pytest.raises(FailedPreconditionError, match=r"not fit to be live: recall is 0\.500, below 0\.95"):
        await reindex(index, encoder, force=True)
    assert index.live == "old"


def test_wrong_settings_are_named() -> None:
    with pytest.raises(SystemExit, match="batch_items"):
        ReindexSettings.parse(["--batch-items", "0"])
