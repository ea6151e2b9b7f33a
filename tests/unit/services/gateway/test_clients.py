"""The clients of the index, the query encoder and the re-ranker, over gRPC, before a backend that a test scripts."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.common.v1 import model_pb2, priority_pb2, row_error_pb2
from aisle.encoder.v1 import query_encoder_pb2
from aisle.rerank.v1 import reranker_pb2
from aisle.retrieval.v1 import vector_retrieval_pb2

from services.gateway.breaker import Breaker, Guard
from services.gateway.clients import QueryEncoderClient, RerankerClient, RetrievalClient
from services.gateway.ports import EventType, Mode, RowError, UserAction, UserModel, Vectors
from shared.errors import InternalError, InvalidArgumentError, UnavailableError, VersionMismatchError
from shared.rpc.client import Dependency
from shared.rpc.interceptor import CallInterceptor
from tests.unit.services.gateway.conftest import SERVICES, Backend, embeddings, item

VECTOR = Vectors(bytes(8), 1, 2, 1, "v1")
IN_STOCK = filter_pb2.Filter(in_stock=True)


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
async def dependency(backend: Backend) -> AsyncIterator[Dependency]:
    server = grpc.aio.server(interceptors=[CallInterceptor(10.0, 4 << 20)])
    for add in SERVICES.values():
        add(backend, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    dependency = Dependency("backend", "any", f"127.0.0.1:{port}")
    yield dependency
    await dependency.close()
    await server.stop(None)


def guard() -> Guard:
    return Guard("backend", Breaker(5, 1.0), patience_s=0.5)


@pytest.fixture
def encoder(dependency: Dependency) -> QueryEncoderClient:
    return QueryEncoderClient(dependency, guard())


@pytest.fixture
def index(dependency: Dependency) -> RetrievalClient:
    return RetrievalClient(dependency, guard(), guard(), dense_weight=0.5)


def answering(response: Any) -> Callable[[Any], Any]:
    async def answer(request: Any) -> Any:
        if isinstance(response, Exception):
            raise response
        return response

    return answer


def queries(tokens: int) -> Any:
    return query_encoder_pb2.EncodeQueriesResponse(embeddings=embeddings(1), token_embeddings=[embeddings(9)] * tokens)


@pytest.mark.parametrize(("asked", "given"), [(False, 0), (True, 1), (True, 0)])
async def test_a_query_brings_its_tokens_where_they_are_asked_for_and_there(
    encoder: QueryEncoderClient, backend: Backend, asked: bool, given: int
) -> None:
    backend.on["EncodeQueries"] = answering(queries(given))
    encoded = await encoder.encode("red lamp", with_tokens=asked, timeout_s=5)
    assert backend.requests["EncodeQueries"] == [
        query_encoder_pb2.EncodeQueriesRequest(
            queries=["red lamp"], priority=priority_pb2.PRIORITY_INTERACTIVE, include_token_embeddings=asked
        )
    ]
    assert encoded.vector == VECTOR
    assert encoded.tokens == (embeddings(9) if given else None)


def ranked(version: str) -> Any:
    return reranker_pb2.RerankResponse(scores=[reranker_pb2.RerankScore(score=1)], model_version=version)


def model(version: str, kind: str) -> Any:
    return model_pb2.GetModelResponse(model=model_pb2.Model(version=version, kind=kind))


async def test_a_reranker_reads_tokens_while_it_is_known_to_be_late_interaction(
    dependency: Dependency, backend: Backend
) -> None:
    reranker = RerankerClient(dependency, guard())
    assert not reranker.reads_tokens
    for version, kind, reads in (
        ("r1", "late-interaction", True),
        ("r2", "cross-encoder", False),
        ("r1", "asked once a version", True),
    ):
        backend.on["Rerank"] = answering(ranked(version))
        backend.on["GetModel"] = answering(model(version, kind))
        await reranker.rerank("red lamp", [item(0)], timeout_s=5)
        assert reranker.reads_tokens is reads
    backend.on["Rerank"] = answering(ranked("r3"))
    backend.on["GetModel"] = answering(UnavailableError("x"))
    await reranker.rerank("red lamp", [item(0)], timeout_s=5)
    assert not reranker.reads_tokens, "what it is could not be told"


async def test_the_querys_tokens_are_passed_on_as_they_came(dependency: Dependency, backend: Backend) -> None:
    reranker = RerankerClient(dependency, guard())
    backend.on["Rerank"] = answering(ranked("r1"))
    await reranker.rerank("red lamp", [item(0)], embeddings(9), timeout_s=5)
    await reranker.rerank("red lamp", [item(0)], timeout_s=5)
    sent, unsent = backend.requests["Rerank"]
    assert (sent.query, sent.query_token_embeddings) == ("red lamp", embeddings(9))
    assert not unsent.HasField("query_token_embeddings")


def users(rows: int, model: int = query_encoder_pb2.USER_MODEL_TEXT, **fields: Any) -> Any:
    return query_encoder_pb2.EncodeUsersResponse(embeddings=embeddings(rows), model=model, **fields)  # type: ignore[arg-type]


async def test_histories_are_sent_as_they_are(encoder: QueryEncoderClient, backend: Backend) -> None:
    error = row_error_pb2.RowError(row=1, reason="NO_HISTORY", message="nothing")
    backend.on["EncodeUsers"] = answering(users(2, errors=[error]))
    history = [
        UserAction(EventType.SEARCH, 1.5, "red lamp"),
        UserAction(EventType.ADD_TO_CART, 2, "Lamp", 0),
        UserAction(EventType.PURCHASE, 3, item_row=None),
    ]
    encoded = await encoder.encode_users([history, []], VECTOR, UserModel.TEXT, timeout_s=5)
    (request,) = backend.requests["EncodeUsers"]
    assert request == query_encoder_pb2.EncodeUsersRequest(
        users=[
            query_encoder_pb2.UserHistory(
                actions=[
                    query_encoder_pb2.UserAction(
                        type=query_encoder_pb2.USER_ACTION_TYPE_SEARCH, age_s=1.5, text="red lamp"
                    ),
                    query_encoder_pb2.UserAction(
                        type=query_encoder_pb2.USER_ACTION_TYPE_ADD_TO_CART, age_s=2, text="Lamp", item_row=0
                    ),
                    query_encoder_pb2.UserAction(type=query_encoder_pb2.USER_ACTION_TYPE_PURCHASE, age_s=3),
                ]
            ),
            query_encoder_pb2.UserHistory(),
        ],
        item_embeddings=embeddings(1),
        model=query_encoder_pb2.USER_MODEL_TEXT,
        priority=priority_pb2.PRIORITY_INTERACTIVE,
    )
    assert (encoded.vectors.rows, encoded.vectors.model_version, encoded.model) == (2, "v1", UserModel.TEXT)
    assert encoded.errors == [RowError(1, "", "", "NO_HISTORY", "nothing")]


async def test_without_a_model_the_encoder_chooses(encoder: QueryEncoderClient, backend: Backend) -> None:
    backend.on["EncodeUsers"] = answering(users(1, query_encoder_pb2.USER_MODEL_WEIGHTED_MEAN))
    encoded = await encoder.encode_users([[]], None, timeout_s=5)
    (request,) = backend.requests["EncodeUsers"]
    assert request.model == query_encoder_pb2.USER_MODEL_UNSPECIFIED
    assert not request.HasField("item_embeddings")
    assert encoded.model is UserModel.WEIGHTED_MEAN


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (users(1, query_encoder_pb2.USER_MODEL_UNSPECIFIED), InternalError),
        (users(3), InternalError),
        (users(2, errors=[row_error_pb2.RowError(row=2)]), InternalError),
        (VersionMismatchError("v1", "v2"), VersionMismatchError),
        (InvalidArgumentError.of("users[0].actions[0].age_s", "no"), InternalError),
    ],
)
async def test_what_an_encoder_must_not_answer(
    encoder: QueryEncoderClient, backend: Backend, answer: Any, error: type[Exception]
) -> None:
    backend.on["EncodeUsers"] = answering(answer)
    with pytest.raises(error):
        await encoder.encode_users([[], []], VECTOR, timeout_s=5)


def browsed(items: list[item_pb2.Item], rows: int | None = None) -> Any:
    return vector_retrieval_pb2.BrowseItemsResponse(
        items=items,
        embeddings=None if rows is None else embeddings(rows),
        generation="g1",
        model_version="v1",
    )


async def test_what_is_browsed_is_scored_by_its_popularity(index: RetrievalClient, backend: Backend) -> None:
    items = [item_pb2.Item(id="a", group_id="g", popularity=7.5), item_pb2.Item(id="b")]
    backend.on["BrowseItems"] = answering(browsed(items, 2))
    found = await index.browse(filter_=IN_STOCK, limit=5, exclude=["x"], with_vectors=True, timeout_s=5)
    assert backend.requests["BrowseItems"] == [
        vector_retrieval_pb2.BrowseItemsRequest(filter=IN_STOCK, limit=5, exclude_ids=["x"], include_embeddings=True)
    ]
    assert [(c.item_id, c.item, c.score, c.group_id) for c in found.candidates] == [
        ("a", items[0], 7.5, "g"),
        ("b", items[1], 0.0, ""),
    ]
    assert found.vectors == Vectors(bytes(16), 2, 2, 1, "v1")
    assert (found.generation, found.model_version) == ("g1", "v1")


async def test_nothing_to_browse_has_no_vectors(index: RetrievalClient, backend: Backend) -> None:
    backend.on["BrowseItems"] = answering(browsed([], 0))
    found = await index.browse(filter_=None, limit=5, with_vectors=True, timeout_s=5)
    assert (list(found.candidates), found.vectors) == ([], None)
    backend.on["BrowseItems"] = answering(browsed([item(0)]))
    assert (await index.browse(filter_=None, limit=5, timeout_s=5)).vectors is None


async def test_a_bad_filter_is_the_callers(index: RetrievalClient, backend: Backend) -> None:
    backend.on["BrowseItems"] = answering(InvalidArgumentError.of("filter.exists", "is not known"))
    with pytest.raises(InvalidArgumentError) as refused:
        await index.browse(filter_=IN_STOCK, limit=5, timeout_s=5)
    assert [v.field for v in refused.value.violations] == ["filter.exists"]


def found_none() -> Any:
    return vector_retrieval_pb2.SearchResponse(candidates=[vector_retrieval_pb2.Candidates()])


async def near(index: RetrievalClient, **options: Any) -> Any:
    return await index.search(vector=VECTOR, text=None, mode=Mode.DENSE, limit=3, timeout_s=5, **options)


@pytest.mark.parametrize("given", [None, IN_STOCK])
async def test_groups_are_left_out_beside_the_callers_filter(
    index: RetrievalClient, backend: Backend, given: filter_pb2.Filter | None
) -> None:
    backend.on["Search"] = answering(found_none())
    await near(index, filter_=given, outside_groups={"b", "a"})
    (request,) = backend.requests["Search"]
    sent = request.filter if given is None else request.filter.all_of.filters[1]
    assert sent.negate.text == filter_pb2.TextCondition(field="group_id", values=["a", "b"])
    assert given is None or request.filter.all_of.filters[0] == given


async def test_a_filter_without_room_for_more_is_sent_as_it_came(index: RetrievalClient, backend: Backend) -> None:
    async def full(request: Any) -> Any:
        if request.filter != IN_STOCK:
            raise InvalidArgumentError.of("filter", "must nest at most 8 deep")
        return found_none()

    backend.on["Search"] = full
    assert not (await near(index, filter_=IN_STOCK, outside_groups=["a"])).candidates


async def test_a_bad_filter_keeps_its_paths_where_groups_are_left_out(index: RetrievalClient, backend: Backend) -> None:
    async def refuse(request: Any) -> Any:
        at = "filter" if request.filter == IN_STOCK else "filter.all_of.filters[0]"
        raise InvalidArgumentError.of(f"{at}.in_stock", "is not known")

    backend.on["Search"] = refuse
    with pytest.raises(InvalidArgumentError) as refused:
        await near(index, filter_=IN_STOCK, outside_groups=["a"])
    assert [v.field for v in refused.value.violations] == ["filter.in_stock"]


async def test_what_is_wrong_besides_the_filter_is_not_asked_again(index: RetrievalClient, backend: Backend) -> None:
    async def refuse(request: Any) -> Any:
        raise InvalidArgumentError.of("embeddings.dimensions", "must be 384")

    backend.on["Search"] = refuse
    with pytest.raises(InternalError, match=r"embeddings\.dimensions"):
        await near(index, filter_=IN_STOCK, outside_groups=["a"])
    assert len(backend.requests["Search"]) == 1


@pytest.mark.parametrize("asked", [True, False])
async def test_hits_bring_vectors_where_they_were_asked_for(
    index: RetrievalClient, backend: Backend, asked: bool
) -> None:
    hits = [vector_retrieval_pb2.Hit(item=item(at), score=1) for at in range(3)]
    candidates = vector_retrieval_pb2.Candidates(hits=hits, embeddings=embeddings(3) if asked else None)
    backend.on["Search"] = answering(vector_retrieval_pb2.SearchResponse(candidates=[candidates]))
    found = await index.search(
        vector=VECTOR, text=None, mode=Mode.DENSE, filter_=None, limit=3, with_vectors=asked, timeout_s=5
    )
    assert backend.requests["Search"][0].include_embeddings is asked
    assert (found.vectors.rows if found.vectors else None) == (3 if asked else None)
    assert [candidate.item_id for candidate in found.candidates] == ["id-0", "id-1", "id-2"]


async def test_hits_with_fewer_vectors_are_a_bug(index: RetrievalClient, backend: Backend) -> None:
    backend.on["BrowseItems"] = answering(browsed([item(0), item(1), item(2)], 1))
    with pytest.raises(InternalError):
        await index.browse(filter_=None, limit=5, with_vectors=True, timeout_s=5)


async def test_several_items_are_read_at_once(index: RetrievalClient, backend: Backend) -> None:
    stored = await index.get_many(["a", "gone", "b"], with_vectors=True, timeout_s=5)
    assert [(s.item_id, s.title, s.vector) for s in stored.items] == [("a", "t", None), ("b", "t", None)]
    assert stored.vectors == Vectors(bytes(16), 2, 2, 1, "v1")
    assert (await index.get_many(["a"], with_vectors=False, timeout_s=5)).vectors is None
    assert (await index.get_many(["gone"], with_vectors=True, timeout_s=5)).items == []
