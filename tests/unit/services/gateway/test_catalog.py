from collections.abc import Sequence

import pytest

from services.gateway.budgets import StageBudget
from services.gateway.catalog import Catalog, CatalogPolicy, CatalogWriter, draft
from services.gateway.ports import Priority, RowError, Stored
from shared.errors import InvalidArgumentError, NotFoundError, OverloadedError, UnavailableError
from tests.unit.services.gateway.fakes import FakeItemEncoder, FakeRetrieval, row


def catalog(retrieval: FakeRetrieval, encoder: FakeItemEncoder | None = None) -> Catalog:
    policy = CatalogPolicy(read=StageBudget(1.0), encode=StageBudget(10.0), write=StageBudget(10.0))
    writer = CatalogWriter(encoder or FakeItemEncoder(), retrieval)
    return Catalog(writer, retrieval, policy, remaining_s=lambda: None)


async def test_upsert_encodes_and_writes() -> None:
    encoder, retrieval = FakeItemEncoder(), FakeRetrieval()
    written = await catalog(retrieval, encoder).upsert([row("a"), row("b")])
    assert written == (2, [])
    assert encoder.priorities == [Priority.INTERACTIVE]
    assert retrieval.written == [["item a", "item b"]]
    assert retrieval.written_vectors[0].rows == 2


async def test_a_broken_item_refuses_the_whole_upsert_and_names_every_field() -> None:
    encoder, retrieval = FakeItemEncoder(), FakeRetrieval()
    with pytest.raises(InvalidArgumentError) as refused:
        await catalog(retrieval, encoder).upsert([row("a"), row("b", broken="title"), row("", broken="id")])
    assert [v.field for v in refused.value.violations] == ["items[1].title", "items[2].id"]
    assert (encoder.calls, retrieval.written) == ([], [])


@pytest.mark.parametrize("count", [0, 101])
async def test_upsert_takes_1_to_100(count: int) -> None:
    with pytest.raises(InvalidArgumentError, match="items"):
        await catalog(FakeRetrieval()).upsert([row(str(at)) for at in range(count)])


async def test_upsert_too_large_to_be_written_as_a_whole() -> None:
    with pytest.raises(InvalidArgumentError, match="items"):
        await catalog(FakeRetrieval()).upsert([row(str(at), size=40_000) for at in range(100)])


async def test_of_equal_ids_the_last_is_written() -> None:
    retrieval = FakeRetrieval()
    written = await catalog(retrieval).upsert([row("a", payload="old"), row("b"), row("a", payload="new")])
    assert written.accepted == 3
    assert sorted(map(str, retrieval.written[0])) == ["item b", "new"]


def cannot_encode(at: int) -> FakeItemEncoder:
    return FakeItemEncoder(errors=lambda items: [RowError(at, "", "", "ENCODE_FAILED", "no")])


async def test_an_item_that_cannot_be_encoded_fails_alone_and_vectors_stay_with_their_items() -> None:
    retrieval = FakeRetrieval()
    written = await catalog(retrieval, cannot_encode(1)).upsert([row("a"), row("b"), row("c")])
    assert written == (2, [RowError(1, "b", "", "ENCODE_FAILED", "no")])
    assert retrieval.written == [["item a", "item c"]]
    assert retrieval.written_vectors[0].data == bytes(4) + bytes([2]) * 4


async def test_when_nothing_can_be_encoded_nothing_is_written() -> None:
    retrieval = FakeRetrieval()
    written = await catalog(retrieval, cannot_encode(0)).upsert([row("a")])
    assert (written.accepted, [e.row for e in written.errors], retrieval.written) == (0, [0], [])


async def test_an_item_the_index_refuses_fails_for_every_row_it_stands_for() -> None:
    refusal = RowError(1, "", "price", "REFUSED", "no")

    def errors(items: Sequence[object]) -> list[RowError]:
        return [RowError(0, "", "", "ENCODE_FAILED", "no")]

    retrieval = FakeRetrieval(upserts=[refusal])
    # Drafts are a, b, c; a is not encoded, so the index sees b and c, and its row 1 is c.
    rows = [row("a"), row("b"), row("c", payload="old"), row("c", payload="new")]
    written = await catalog(retrieval, FakeItemEncoder(errors=errors)).upsert(rows)
    assert written.accepted == 1
    assert [(e.row, e.item_id, e.reason) for e in written.errors] == [
        (0, "a", "ENCODE_FAILED"),
        (2, "c", "REFUSED"),
        (3, "c", "REFUSED"),
    ]


@pytest.mark.parametrize("error", [UnavailableError("item_encoder"), OverloadedError("full")])
async def test_a_waiting_caller_is_told_at_once(error: Exception) -> None:
    async def fail(items: Sequence[object]) -> None:
        raise error

    retrieval = FakeRetrieval()
    with pytest.raises(type(error)):
        await catalog(retrieval, FakeItemEncoder(fail)).upsert([row("a")])
    assert retrieval.written == []


def test_drafts_of_mixed_rows() -> None:
    drafts, errors = draft([row("a", payload="1"), row("b", broken="title"), row("a", payload="2")], first=10)
    assert [(d.row.payload, d.rows) for d in drafts] == [("2", (12, 10))]
    assert errors == [RowError(11, "b", "title", "INVALID_ARGUMENT", "title: is wrong")]


def test_a_broken_duplicate_does_not_replace_a_valid_row() -> None:
    drafts, errors = draft([row("a", payload="1"), row("a", payload="2", broken="title")])
    assert [d.row.payload for d in drafts] == ["1"]
    assert [e.row for e in errors] == [1]


async def test_get() -> None:
    assert await catalog(FakeRetrieval(stored=Stored("item"))).get("a") == "item"
    with pytest.raises(NotFoundError):
        await catalog(FakeRetrieval(stored=None)).get("a")
    with pytest.raises(InvalidArgumentError, match="id"):
        await catalog(FakeRetrieval()).get("")


async def test_delete() -> None:
    retrieval = FakeRetrieval(deleted=1)
    assert await catalog(retrieval).delete(["a", "b"]) == 1
    assert retrieval.deletes == [["a", "b"]]


@pytest.mark.parametrize(("ids", "field"), [([], "ids"), (["a"] * 1001, "ids"), (["a", " "], r"ids\[1\]")])
async def test_delete_limits(ids: list[str], field: str) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        await catalog(FakeRetrieval()).delete(ids)
