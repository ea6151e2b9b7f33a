"""`EncodeUsers` as a client sees it."""

from typing import TypeAlias

import grpc
import numpy as np
import pytest
from aisle.common.v1 import embeddings_pb2, priority_pb2
from aisle.encoder.v1 import query_encoder_pb2 as pb
from aisle.encoder.v1 import query_encoder_pb2_grpc

from services.query_encoder.__main__ import build
from services.query_encoder.settings import QueryEncoderSettings
from services.query_encoder.users import UserModelName
from shared.bundles import Bundle
from shared.errors import VersionMismatchError
from shared.inference import BackendName
from shared.rpc.embeddings import pack, unpack
from shared.rpc.status import from_rpc_error
from tests.unit.services.conftest import Serve

Stub: TypeAlias = "query_encoder_pb2_grpc.QueryEncoderAsyncStub"

ITEMS = np.eye(3, 8, dtype=np.float32)
NAN = float("nan")


async def open_encoder(serve: Serve, bundle: Bundle, **changes: object) -> Stub:
    settings = QueryEncoderSettings(bundle=str(bundle.path), backend=BackendName.DUMMY, **changes)  # type: ignore[arg-type]
    return query_encoder_pb2_grpc.QueryEncoderStub(await serve(build, settings))


@pytest.fixture
async def encoder(serve: Serve, bundle: Bundle) -> Stub:
    return await open_encoder(serve, bundle)


def action(
    kind: pb.UserActionType.ValueType = pb.USER_ACTION_TYPE_PURCHASE,
    age_s: float = 0,
    text: str = "",
    item_row: int | None = None,
) -> pb.UserAction:
    return pb.UserAction(type=kind, age_s=age_s, text=text, item_row=item_row)


def history(*actions: pb.UserAction) -> pb.UserHistory:
    return pb.UserHistory(actions=actions)


def search(text: str) -> pb.UserAction:
    return action(pb.USER_ACTION_TYPE_SEARCH, text=text)


async def test_rows_come_in_the_order_of_the_users(encoder: Stub, bundle: Bundle) -> None:
    request = pb.EncodeUsersRequest(
        users=[history(action(item_row=2)), history(), history(search("red lamp")), history(action(item_row=0))],
        item_embeddings=pack(ITEMS, bundle.version),
    )
    response = await encoder.EncodeUsers(request)
    rows = unpack(response.embeddings)
    np.testing.assert_allclose(rows[[0, 3]], ITEMS[[2, 0]], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 0, 1, 1], atol=1e-6)
    assert (response.embeddings.model_version, response.model) == (bundle.version, pb.USER_MODEL_WEIGHTED_MEAN)
    assert [(error.row, error.reason) for error in response.errors] == [(1, "NO_HISTORY")]
    lamp = (await encoder.EncodeQueries(pb.EncodeQueriesRequest(queries=["red lamp"]))).embeddings
    np.testing.assert_allclose(rows[2], unpack(lamp)[0], atol=1e-6)


async def test_the_request_chooses_the_model(encoder: Stub) -> None:
    users = [history(action(pb.USER_ACTION_TYPE_VIEW, text="red lamp")), history(action(item_row=None))]
    response = await encoder.EncodeUsers(
        pb.EncodeUsersRequest(users=users, model=pb.USER_MODEL_TEXT, priority=priority_pb2.PRIORITY_BULK)
    )
    assert response.model == pb.USER_MODEL_TEXT
    assert [error.row for error in response.errors] == [1]
    mean = await encoder.EncodeUsers(pb.EncodeUsersRequest(users=users, model=pb.USER_MODEL_WEIGHTED_MEAN))
    assert [error.row for error in mean.errors] == [0, 1]


async def test_the_setting_chooses_where_the_request_does_not(serve: Serve, bundle: Bundle) -> None:
    encoder = await open_encoder(serve, bundle, user_model=UserModelName.TEXT)
    response = await encoder.EncodeUsers(pb.EncodeUsersRequest(users=[history(search("red lamp"))]))
    assert response.model == pb.USER_MODEL_TEXT


async def test_the_weights_are_settings(serve: Serve, bundle: Bundle) -> None:
    encoder = await open_encoder(
        serve, bundle, user_weight_click=2, user_weight_view=1, user_half_life_occasions=1, user_weight_search=0
    )
    clicked = action(pb.USER_ACTION_TYPE_CLICK, age_s=86_400, item_row=0)
    viewed = action(pb.USER_ACTION_TYPE_VIEW, item_row=1)
    response = await encoder.EncodeUsers(
        pb.EncodeUsersRequest(
            users=[history(viewed, clicked, search("red lamp"))], item_embeddings=pack(ITEMS, bundle.version)
        )
    )
    np.testing.assert_allclose(unpack(response.embeddings)[0], (ITEMS[0] + ITEMS[1]) / np.sqrt(2), atol=1e-6)


def bad_embeddings(**changes: object) -> embeddings_pb2.Embeddings:
    good = pack(ITEMS, "some version")
    for name, value in changes.items():
        setattr(good, name, value)
    return good


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.EncodeUsersRequest(), ["users"]),
        (pb.EncodeUsersRequest(users=[history()] * 65), ["users"]),
        (pb.EncodeUsersRequest(users=[history()], model=9, priority=9), ["model", "priority"]),  # type: ignore[arg-type]
        (pb.EncodeUsersRequest(users=[history(), history(*[action()] * 201)]), ["users[1].actions"]),
        (
            pb.EncodeUsersRequest(
                users=[
                    history(action(), action(item_row=3), action(age_s=-1)),
                    history(action(pb.USER_ACTION_TYPE_UNSPECIFIED, NAN), action(text="x" * 2001)),
                    history(action(9, float("inf"))),  # type: ignore[arg-type]
                ],
                item_embeddings=pack(ITEMS, "some version"),
            ),
            [
                "users[0].actions[1].item_row",
                "users[0].actions[2].age_s",
                "users[1].actions[0].type",
                "users[1].actions[0].age_s",
                "users[1].actions[1].text",
                "users[2].actions[0].type",
                "users[2].actions[0].age_s",
            ],
        ),
        (pb.EncodeUsersRequest(users=[history(action(item_row=0))]), ["users[0].actions[0].item_row"]),
        (
            pb.EncodeUsersRequest(
                users=[history(action(age_s=-1, item_row=99))], item_embeddings=bad_embeddings(data=b"12345")
            ),
            ["item_embeddings.data", "users[0].actions[0].age_s"],
        ),
        (
            pb.EncodeUsersRequest(users=[history()], item_embeddings=pack(np.full((1, 8), NAN, np.float32), "v")),
            ["item_embeddings.data"],
        ),
        (
            pb.EncodeUsersRequest(users=[history()], item_embeddings=bad_embeddings(model_version="")),
            ["item_embeddings.model_version"],
        ),
    ],
)
async def test_a_bad_request_names_every_field(
    encoder: Stub, request_: pb.EncodeUsersRequest, fields: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await encoder.EncodeUsers(request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    violations = from_rpc_error(refused.value, "query_encoder").violations  # type: ignore[attr-defined]
    assert [violation.field for violation in violations] == fields


async def test_vectors_of_another_length_are_refused(encoder: Stub, bundle: Bundle) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=r"item_embeddings\.dimensions: must be 8") as refused:
        await encoder.EncodeUsers(
            pb.EncodeUsersRequest(users=[history()], item_embeddings=pack(np.eye(3, dtype=np.float32), bundle.version))
        )
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_vectors_of_another_model_are_refused_naming_both(encoder: Stub, bundle: Bundle) -> None:
    request = pb.EncodeUsersRequest(users=[history(action(item_row=0))], item_embeddings=pack(ITEMS, "another"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await encoder.EncodeUsers(request)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    error = from_rpc_error(refused.value, "query_encoder")
    assert isinstance(error, VersionMismatchError)
    assert (error.got, error.expected) == ("another", bundle.version)
    assert "another" in error.message
    assert bundle.version in error.message
