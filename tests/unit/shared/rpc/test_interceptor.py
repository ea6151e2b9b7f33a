"""What every call passes on its way in."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from aisle.catalog.v1 import item_pb2
from aisle.encoder.v1 import query_encoder_pb2_grpc
from aisle.events.v1 import user_events_pb2
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc
from prometheus_client import REGISTRY

from shared.errors import AisleError, OverloadedError, UnavailableError
from shared.rpc import deadline
from shared.rpc.balancing import service_config
from shared.rpc.client import Dependency
from shared.rpc.context import REQUEST_ID_KEY, request_id
from shared.rpc.interceptor import CallInterceptor
from shared.rpc.status import PUSHBACK_KEY, from_rpc_error
from tests.unit.shared.rpc.conftest import (
    DEFAULT_TIMEOUT_S,
    MAX_REQUEST_BYTES,
    SERVICE,
    Request,
    Response,
    Scripted,
    forever,
)

ENCODE = "/aisle.encoder.v1.QueryEncoder/EncodeQueries"


async def test_a_callers_request_id_is_adopted_and_echoed(scripted: Scripted, stub: Any) -> None:
    seen = []

    async def note(request: Any, context: Any) -> Response:
        seen.append(request_id())
        return Response()

    scripted.behaviour = note
    call = stub.EncodeQueries(Request(), metadata=((REQUEST_ID_KEY, "abc-1"),))
    await call
    assert seen == ["abc-1"]
    assert dict(await call.trailing_metadata())[REQUEST_ID_KEY] == "abc-1"


@pytest.mark.parametrize("given", [None, "x" * 200])
async def test_a_missing_or_unfit_request_id_is_replaced(stub: Any, given: str | None) -> None:
    call = stub.EncodeQueries(Request(), metadata=((REQUEST_ID_KEY, given),) if given else None)
    await call
    made = dict(await call.trailing_metadata())[REQUEST_ID_KEY]
    assert made != given
    assert len(made) == 32


async def test_a_failed_call_echoes_its_request_id_too(scripted: Scripted, stub: Any) -> None:
    async def fail(request: Any, context: Any) -> Response:
        raise ZeroDivisionError("the item text")

    scripted.behaviour = fail
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.EncodeQueries(Request(), metadata=((REQUEST_ID_KEY, "abc-2"),))
    assert dict(caught.value.trailing_metadata())[REQUEST_ID_KEY] == "abc-2"


async def test_a_bug_is_internal_and_tells_nothing_but_where_to_look(scripted: Scripted, stub: Any) -> None:
    async def fail(request: Any, context: Any) -> Response:
        raise ZeroDivisionError("the item text")

    scripted.behaviour = fail
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.EncodeQueries(Request(), metadata=((REQUEST_ID_KEY, "abc-3"),))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error; its log line has request id abc-3"
    assert b"item text" not in b"".join(
        v if isinstance(v, bytes) else v.encode() for _, v in caught.value.trailing_metadata()
    )


async def test_a_call_without_a_deadline_is_ended_by_the_servers(scripted: Scripted, stub: Any) -> None:
    scripted.behaviour = forever
    with pytest.raises(grpc.aio.AioRpcError, match="set one") as caught:
        await stub.EncodeQueries(Request())
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_time_limit_of_the_handlers_own_that_it_forgot_is_a_bug(scripted: Scripted, stub: Any) -> None:
    async def forget(request: Any, context: Any) -> Response:
        raise TimeoutError

    scripted.behaviour = forget
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.EncodeQueries(Request(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.INTERNAL


async def test_the_handler_knows_the_deadline_and_hands_on_what_is_left(scripted: Scripted, stub: Any) -> None:
    left: list[float | None] = []

    async def note(request: Any, context: Any) -> Response:
        left.extend(
            [deadline.remaining_s(), deadline.timeout_s(100), deadline.timeout_s(0.5), deadline.timeout_s(9, 1)]
        )
        return Response()

    scripted.behaviour = note
    await stub.EncodeQueries(Request(), timeout=5)
    remaining, whole, capped, reserved = (value or 0 for value in left)
    # gRPC rounds what it writes into the header up, by about a hundredth.
    assert 4 < remaining <= 5.1
    assert 4 < whole <= 5.1
    assert capped == 0.5
    assert 3 < reserved <= 4.1


async def test_the_handler_of_a_call_without_a_deadline_gets_the_servers(scripted: Scripted, stub: Any) -> None:
    left: list[float | None] = []

    async def note(request: Any, context: Any) -> Response:
        left.append(deadline.remaining_s())
        return Response()

    scripted.behaviour = note
    await stub.EncodeQueries(Request())
    assert 0 < (left[0] or 0) <= DEFAULT_TIMEOUT_S


async def test_a_cancelled_caller_cancels_the_handler(scripted: Scripted, stub: Any) -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(request: Any, context: Any) -> Response:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Response()

    scripted.behaviour = wait
    call = stub.EncodeQueries(Request(), timeout=20)
    waiting = asyncio.ensure_future(_outcome(call))
    await entered.wait()
    call.cancel()
    await asyncio.wait_for(cancelled.wait(), 5)
    await waiting


async def _outcome(call: Any) -> None:
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await call


async def test_a_request_over_the_limit_is_refused_by_size(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=f"at most {MAX_REQUEST_BYTES} are read") as caught:
        await stub.EncodeQueries(Request(queries=["x" * MAX_REQUEST_BYTES]))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (b"\x0a\x02ok\x0a\x02\xff\xfe", "queries[1]: must be valid UTF-8"),
        (b"\x0a\x7f", "request: is not a valid protobuf message"),
    ],
)
async def test_what_cannot_be_read_names_the_field(dependency: Dependency, message: bytes, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await dependency.channel.unary_unary(ENCODE)(message)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (caught.value.details() or "").startswith(field)


async def test_a_bad_string_deep_in_a_stream_names_its_path(dependency: Dependency) -> None:
    good = catalog_pb2.ImportItemsRequest(items=[item_pb2.Item(id="1", title="ok")]).SerializeToString()
    item = item_pb2.Item(id="2", attributes={"color": item_pb2.Attribute(text=["zz"])}).SerializeToString()
    bad = good + b"\x0a" + bytes([len(item)]) + item.replace(b"zz", b"\xff\xff")
    call = dependency.channel.stream_stream("/aisle.gateway.v1.Catalog/ImportItems")(iter([good, bad]))
    assert await call.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "items[1].attributes[0].value.text[0]" in (caught.value.details() or "")


async def test_a_stream_without_a_deadline_outlives_the_default(scripted: Scripted, dependency: Dependency) -> None:
    async def slow(request: Any, context: Any) -> None:
        await asyncio.sleep(1.5 * DEFAULT_TIMEOUT_S)

    scripted.behaviour = slow
    stub = catalog_pb2_grpc.CatalogStub(dependency.channel)
    rows = [response.rows async for response in stub.ImportItems(iter([catalog_pb2.ImportItemsRequest()] * 2))]
    assert rows == [0, 0]


async def test_calls_are_counted_by_code(scripted: Scripted, stub: Any) -> None:
    before = handled("OK"), handled("Internal")
    await stub.EncodeQueries(Request())

    async def fail(request: Any, context: Any) -> Response:
        raise ZeroDivisionError

    scripted.behaviour = fail
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.EncodeQueries(Request())
    assert (handled("OK"), handled("Internal")) == (before[0] + 1, before[1] + 1)


def handled(code: str, side: str = "server") -> float:
    labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "EncodeQueries", "grpc_code": code}
    return REGISTRY.get_sample_value(f"grpc_{side}_handled_total", labels) or 0.0


async def test_a_call_given_up_counts_as_cancelled_and_not_as_answered(
    scripted: Scripted, dependency: Dependency, stub: Any
) -> None:
    entered = asyncio.Event()

    async def wait(request: Any, context: Any) -> Response:
        entered.set()
        return await forever(request, context)

    scripted.behaviour = wait
    before = handled("OK", "client"), handled("Canceled", "client")
    calling = asyncio.create_task(dependency.call(stub.EncodeQueries, Request(), timeout_s=20))
    await entered.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert (handled("OK", "client"), handled("Canceled", "client")) == (before[0], before[1] + 1)
    scripted.behaviour = Scripted._answer
    await dependency.call(stub.EncodeQueries, Request(), timeout_s=5)
    assert handled("OK", "client") == before[0] + 1


async def test_the_series_of_a_dependencys_methods_exist_before_the_first_call() -> None:
    # Of a method that no test calls, so that nothing but their making can have made them.
    dependency = Dependency(
        "user_events", user_events_pb2.DESCRIPTOR.services_by_name["UserEvents"].full_name, "localhost:1"
    )
    labels = {"grpc_type": "unary", "grpc_service": dependency.service, "grpc_method": "ForgetUser"}
    assert REGISTRY.get_sample_value("grpc_client_started_total", labels) == 0
    assert REGISTRY.get_sample_value("grpc_client_handled_total", {**labels, "grpc_code": "DeadlineExceeded"}) == 0
    await dependency.close()


class Gated:
    """A gate that a test opens and closes, and the methods it was asked about."""

    def __init__(self) -> None:
        self.refusal: AisleError | None = None
        self.asked: list[str] = []

    def __call__(self, method: str) -> AisleError | None:
        self.asked.append(method)
        return self.refusal


@pytest.fixture
async def gated(scripted: Scripted) -> AsyncIterator[tuple[Gated, grpc.aio.Channel]]:
    gate = Gated()
    gates = {SERVICE: gate, "aisle.gateway.v1.Catalog": gate}
    server = grpc.aio.server(interceptors=[CallInterceptor(DEFAULT_TIMEOUT_S, MAX_REQUEST_BYTES, gates=gates)])
    query_encoder_pb2_grpc.add_QueryEncoderServicer_to_server(scripted, server)
    catalog_pb2_grpc.add_CatalogServicer_to_server(scripted, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = [("grpc.service_config", service_config(client_balancing=True))]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield gate, channel
    await server.stop(None)


async def test_a_call_is_refused_before_its_request_is_read(
    scripted: Scripted, gated: tuple[Gated, grpc.aio.Channel]
) -> None:
    gate, channel = gated
    served = []

    async def note(request: Any, context: Any) -> Response:
        served.append(request)
        return Response()

    scripted.behaviour = note
    gate.refusal = OverloadedError("come back later", reason="QUEUE_FULL", retry_after_s=0.5)
    send = channel.unary_unary(ENCODE, request_serializer=bytes, response_deserializer=bytes)
    before = handled("ResourceExhausted")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        # What nobody reads may say anything.
        await send(b"\xff\xff", metadata=((REQUEST_ID_KEY, "abc-4"),), timeout=5)
    error = caught.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "come back later"
    trailers = dict(error.trailing_metadata())
    assert trailers[REQUEST_ID_KEY] == "abc-4"
    assert trailers[PUSHBACK_KEY] == "500"
    assert from_rpc_error(error, "it").reason == "QUEUE_FULL"
    assert served == []
    assert handled("ResourceExhausted") == before + 1
    gate.refusal = None
    assert await send(b"", timeout=5) == b""
    assert len(served) == 1
    assert gate.asked == ["EncodeQueries"] * 2


async def test_a_channel_tries_again_what_a_gate_refused_as_unavailable(
    gated: tuple[Gated, grpc.aio.Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, channel = gated
    refusals = iter([UnavailableError("it")])
    monkeypatch.setattr(Gated, "__call__", lambda self, method: self.asked.append(method) or next(refusals, None))
    await channel.unary_unary(ENCODE, request_serializer=bytes, response_deserializer=bytes)(b"", timeout=5)
    assert gate.asked == ["EncodeQueries"] * 2


async def test_only_unary_methods_that_exist_pass_a_gate(gated: tuple[Gated, grpc.aio.Channel]) -> None:
    gate, channel = gated
    gate.refusal = OverloadedError("come back later")
    unknown = channel.unary_unary(f"/{SERVICE}/Guess", request_serializer=bytes, response_deserializer=bytes)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unknown(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    stream = catalog_pb2_grpc.CatalogStub(channel).ImportItems(timeout=5)
    await stream.write(catalog_pb2.ImportItemsRequest())
    await stream.done_writing()
    assert [response async for response in stream] == [catalog_pb2.ImportItemsResponse()]
    assert gate.asked == []
