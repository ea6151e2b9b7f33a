"""What every call passes on its way in: request id, deadline, caller, size and encoding, span, metrics, status table.

Servicers behind it convert and raise; they never abort, log or count.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import structlog

from shared.errors import AisleError, DeadlineError, InternalError, InvalidArgumentError
from shared.rpc import call_metrics, labels
from shared.rpc import context as call_context
from shared.rpc.decode import Undecodable, tolerant
from shared.rpc.status import to_status
from shared.rpc.tls import Callers
from shared.telemetry import tracing

if TYPE_CHECKING:
    from shared.telemetry.otel import CallSpan, Unfollowed

_log = structlog.get_logger()

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Gate = Callable[[str], AisleError | None]
"""Why a call of this method (`Search`) is refused unread, if it is."""

_EXEMPT = ("/grpc.health.", "/grpc.reflection.")
"""Answered while draining too, to any caller that may connect, and not worth a log line a second."""

_QUIET = {
    grpc.StatusCode.OK,
    # There are as many of them as there is too much load: to write each down would take from those that are served.
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.CANCELLED,
}
"""The caller's affair, but for the overloaded, who are counted: logged at debug."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """`default_timeout_s` bounds calls without a deadline; `max_request_bytes` bounds one message; `callers` says who
    may call, where connections tell who does; `gates`, by full name of a service, which calls are not even read."""

    def __init__(
        self,
        default_timeout_s: float,
        max_request_bytes: int,
        callers: Callers | None = None,
        gates: Mapping[str, Gate] | None = None,
    ) -> None:
        self._default_timeout_s = default_timeout_s
        self._max_request_bytes = max_request_bytes
        self._callers = callers
        self._gates = gates or {}
        self._known: dict[str, _Method] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Wraps the method's handler, once; the handler of a call that is refused does not wait for its request."""
        method = handler_call_details.method
        if (known := self._known.get(method)) is None:
            handler = await continuation(handler_call_details)
            if handler is None or method.startswith(_EXEMPT):
                return handler
            known = self._known[method] = self._method(method, handler)
        if known.gate is not None and (refusal := known.gate(known.rpc[2])) is not None:
            return grpc.stream_stream_rpc_method_handler(partial(self._refuse, known.rpc, refusal))
        return known.handler

    async def _refuse(self, rpc: tuple[str, str, str], refusal: AisleError, _requests: Any, context: Any) -> None:
        call = _Call(rpc, context, self._default_timeout_s)
        try:
            # Who may never call is not told to come back.
            self._identify(context)
        except AisleError as error:
            await call.fail(error)
        await call.fail(refusal)

    def _method(self, method: str, handler: Any) -> "_Method":
        rpc = (labels.kind(handler.request_streaming, handler.response_streaming), *labels.split(method))
        deserializer = tolerant(handler.request_deserializer)
        match rpc[0]:
            case "unary":
                unary = self._unary(rpc, handler.unary_unary)
                wrapped: Handler = grpc.unary_unary_rpc_method_handler(unary, deserializer, handler.response_serializer)
                return _Method(rpc, wrapped, self._gates.get(rpc[1]))
            case "server_stream":
                stream = self._stream(rpc, handler.unary_stream, streams_in=False)
                wrapped = grpc.unary_stream_rpc_method_handler(stream, deserializer, handler.response_serializer)
            case "bidi_stream":
                stream = self._stream(rpc, handler.stream_stream, streams_in=True)
                wrapped = grpc.stream_stream_rpc_method_handler(stream, deserializer, handler.response_serializer)
            case _:
                raise NotImplementedError(f"{method}: Aisle has no client-streaming methods; stream responses too")
        return _Method(rpc, wrapped)

    def _unary(self, rpc: tuple[str, str, str], behaviour: Any) -> Any:
        async def serve(request: Any, context: Any) -> Any:
            call = _Call(rpc, context, self._default_timeout_s)
            try:
                self._identify(context)
                self._admit(request)
                async with call.limit:
                    response = await behaviour(request, context)
            except BaseException as error:
                await call.fail(error)
                raise
            call.end(grpc.StatusCode.OK)
            return response

        return serve

    def _stream(self, rpc: tuple[str, str, str], behaviour: Any, *, streams_in: bool) -> Any:
        async def serve(request: Any, context: Any) -> AsyncIterator[Any]:
            # A stream lives as long as its caller wants it to; only a deadline that the caller set bounds it.
            call = _Call(rpc, context, default_timeout_s=None)
            try:
                self._identify(context)
                if not streams_in:
                    self._admit(request)
                async for response in behaviour(self._each(request) if streams_in else request, context):
                    yield response
            except BaseException as error:
                await call.fail(error)
                raise
            call.end(grpc.StatusCode.OK)

        return serve

    async def _each(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            self._admit(request)
            yield request

    def _identify(self, context: Any) -> None:
        if self._callers is not None:
            self._callers.admit(context)

    def _admit(self, request: Any) -> None:
        if isinstance(request, Undecodable):
            raise InvalidArgumentError.of(request.field, request.description)
        if request.ByteSize() > self._max_request_bytes:
            raise InvalidArgumentError.of(
                "request",
                f"is {request.ByteSize()} bytes; at most {self._max_request_bytes} are read: send less at once",
            )


@dataclass(frozen=True, slots=True)
class _Method:
    rpc: tuple[str, str, str]
    handler: Handler
    gate: Gate | None = None


class _Call:
    """One call from its start to its one end."""

    def __init__(self, rpc: tuple[str, str, str], context: Any, default_timeout_s: float | None) -> None:
        self._rpc = rpc
        self._context = context
        self._started = time.perf_counter()
        given = next((v for k, v in context.invocation_metadata() or () if k == call_context.REQUEST_ID_KEY), None)
        identity = call_context.adopt_request_id(given if isinstance(given, str) else None)
        context.set_trailing_metadata(((call_context.REQUEST_ID_KEY, identity),))
        self._identity = identity
        left = context.time_remaining()
        self.limit = asyncio.timeout(default_timeout_s if left is None else None)
        """Ends the call; only where gRPC itself would not, for want of a deadline."""
        if left is None:
            left = default_timeout_s
        call_context.set_deadline(None if left is None else time.monotonic() + left)
        self._span: CallSpan | Unfollowed | None = None
        if (tracer := tracing.active()) is not None:
            self._span = tracer.served("/".join(rpc[1:]), context.invocation_metadata() or (), identity)
        call_metrics.SERVER.started(rpc)

    def end(self, code: grpc.StatusCode, error: BaseException | None = None) -> None:
        """Counts, times and logs the call, and ends its span."""
        seconds = time.perf_counter() - self._started
        if self._span is not None:
            self._span.end(code)
        call_metrics.SERVER.handled(self._rpc, code, seconds)
        log = _log.debug if code in _QUIET else _log.warning
        log(
            "call",
            method="/".join(self._rpc[1:]),
            code=code.name,
            ms=round(seconds * 1000, 2),
            **({"error": error.message} if isinstance(error, AisleError) else {}),
        )

    async def fail(self, error: BaseException) -> None:
        """Ends the call with the status that `error` stands for, and raises what gRPC wants raised."""
        match error:
            case AisleError():
                known: AisleError = error
            case TimeoutError() if self.limit.expired():
                known = DeadlineError("the call took longer than the server allows without a deadline; set one")
            case asyncio.CancelledError() | GeneratorExit():
                late = self._context.time_remaining() == 0
                self.end(grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED)
                return
            case Exception():
                _log.error("bug", method="/".join(self._rpc[1:]), exc_info=error)
                known = InternalError(f"internal error; its log line has request id {self._identity}")
            case _:
                return
        code, message, trailers = to_status(known)
        self.end(code, known)
        # Not `set_code`, which sends headers before the status: a channel tries nothing again that has had headers.
        await self._context.abort(code, message, (*trailers, (call_context.REQUEST_ID_KEY, self._identity)))
