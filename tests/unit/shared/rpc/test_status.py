"""The status table, a test a row, over a real call and back into the domain."""

from typing import Any

import grpc
import pytest

from shared import errors
from shared.rpc.client import Dependency
from shared.rpc.status import CODES, PUSHBACK_KEY, to_status
from tests.unit.shared.rpc.conftest import Request, Scripted

ROWS: list[tuple[errors.AisleError, grpc.StatusCode]] = [
    (errors.InvalidArgumentError.of("items[3].title", "must not be empty"), grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFoundError("item", "sku-1"), grpc.StatusCode.NOT_FOUND),
    (errors.FailedPreconditionError("index not loaded", reason="NOT_LOADED"), grpc.StatusCode.FAILED_PRECONDITION),
    (errors.VersionMismatchError("v2", "v1"), grpc.StatusCode.FAILED_PRECONDITION),
    (errors.OverloadedError("the queue is full", retry_after_s=0.25), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.DeadlineError("too late"), grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.UnavailableError("milvus", retry_after_s=1.5), grpc.StatusCode.UNAVAILABLE),
    (errors.UnauthenticatedError("who are you?"), grpc.StatusCode.UNAUTHENTICATED),
    (errors.PermissionDeniedError("not you"), grpc.StatusCode.PERMISSION_DENIED),
    (errors.InternalError("a bug"), grpc.StatusCode.INTERNAL),
]


def name(value: object) -> str:
    return type(value).__name__ if isinstance(value, errors.AisleError) else ""


def test_every_error_of_the_domain_has_a_row_that_is_tested() -> None:
    def leaves(kind: type[errors.AisleError]) -> set[type[errors.AisleError]]:
        return {kind} | {leaf for child in kind.__subclasses__() for leaf in leaves(child)}

    aisle = {kind for kind in leaves(errors.AisleError) if kind.__module__ == "shared.errors"} - {errors.AisleError}
    assert aisle == {type(error) for error, _ in ROWS}
    assert set(CODES) | {errors.VersionMismatchError} == aisle


@pytest.mark.parametrize(("error", "code"), ROWS, ids=name)
async def test_a_row_reaches_the_caller_with_its_code_reason_and_message(
    error: errors.AisleError, code: grpc.StatusCode, scripted: Scripted, stub: Any
) -> None:
    async def fail(request: Any, context: Any) -> Any:
        raise error

    scripted.behaviour = fail
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.EncodeQueries(Request())
    assert caught.value.code() is code
    assert caught.value.details() == error.message


@pytest.mark.parametrize(("error", "code"), ROWS, ids=name)
async def test_a_row_comes_back_as_the_same_error(
    error: errors.AisleError, code: grpc.StatusCode, scripted: Scripted, stub: Any, dependency: Dependency
) -> None:
    async def fail(request: Any, context: Any) -> Any:
        raise error

    scripted.behaviour = fail
    with pytest.raises(errors.AisleError) as caught:
        await dependency.call(stub.EncodeQueries, Request(), timeout_s=5)
    came = caught.value
    if code in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}:
        # Whom a service trusts is between it and its neighbour: to the caller of the neighbour it is a bug.
        assert type(came) is errors.InternalError
        return
    assert type(came) is type(error)
    assert came.reason == error.reason
    for detail in ("violations", "kind", "resource", "got", "expected", "retry_after_s", "dependency"):
        assert getattr(came, detail, None) == getattr(error, detail, None)


def test_only_an_overload_tells_the_channel_to_wait() -> None:
    pushed = {type(error) for error, _ in ROWS if PUSHBACK_KEY in dict(to_status(error)[2])}
    assert pushed == {errors.OverloadedError}
    assert dict(to_status(errors.OverloadedError("full", retry_after_s=0.25))[2])[PUSHBACK_KEY] == "250"


def test_what_is_refused_alike_is_put_into_words_once() -> None:
    first, second, later = (to_status(errors.OverloadedError("full", retry_after_s=s)) for s in (0.25, 0.25, 0.5))
    assert first is second
    assert dict(later[2])[PUSHBACK_KEY] == "500"


async def test_a_thousand_violations_still_fit_the_trailers(scripted: Scripted, stub: Any) -> None:
    async def fail(request: Any, context: Any) -> Any:
        raise errors.InvalidArgumentError(
            errors.FieldViolation(f"items[{i}].attributes[{'x' * 500!r}]", "must not be empty") for i in range(1000)
        )

    scripted.behaviour = fail
    with pytest.raises(grpc.aio.AioRpcError, match="and 990 more like these") as caught:
        await stub.EncodeQueries(Request())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
