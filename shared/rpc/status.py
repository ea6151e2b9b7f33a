"""The status table: domain error → gRPC status with `google.rpc` details, and back at the other end.

    InvalidArgumentError      INVALID_ARGUMENT     BadRequest, ErrorInfo
    NotFoundError             NOT_FOUND            ResourceInfo, ErrorInfo
    FailedPreconditionError   FAILED_PRECONDITION  ErrorInfo
    OverloadedError           RESOURCE_EXHAUSTED   RetryInfo, ErrorInfo; trailer grpc-retry-pushback-ms
    DeadlineError             DEADLINE_EXCEEDED    ErrorInfo
    UnavailableError          UNAVAILABLE          RetryInfo, ErrorInfo
    UnauthenticatedError      UNAUTHENTICATED      ErrorInfo
    PermissionDeniedError     PERMISSION_DENIED    ErrorInfo
    InternalError, any other  INTERNAL             ErrorInfo

Details follow google/rpc/error_details.proto; the pushback trailer follows gRPC's retry design (gRFC A6). UNAVAILABLE
carries none: a channel that retries it at once may reach another replica, and waiting would only spend the deadline.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from shared import errors

DOMAIN = "aisle"
"""`ErrorInfo.domain` of every error Aisle makes."""
PUSHBACK_KEY = "grpc-retry-pushback-ms"

CODES: dict[type[errors.AisleError], grpc.StatusCode] = {
    errors.InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}

Trailers = tuple[tuple[str, str | bytes], ...]


def code_of(error: errors.AisleError) -> grpc.StatusCode:
    """The row of the table that `error`, or the nearest of its base classes, stands in."""
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), grpc.StatusCode.INTERNAL)


def to_status(error: errors.AisleError) -> tuple[grpc.StatusCode, str, Trailers]:
    """Code, message and trailers with which `error` leaves the process."""
    if isinstance(error, errors.OverloadedError):
        return _overloaded(error.message, error.reason, max(1, round(error.retry_after_s * 1000)))
    code = code_of(error)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    details: list[Any] = [info]
    if isinstance(error, errors.InvalidArgumentError):
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
                    for v in error.violations
                ]
            )
        )
    elif isinstance(error, errors.NotFoundError):
        details.append(error_details_pb2.ResourceInfo(resource_type=error.kind, resource_name=error.resource))
    elif isinstance(error, errors.UnavailableError):
        info.metadata["dependency"] = error.dependency
        details.append(_retry(max(1, round(error.retry_after_s * 1000))))
    if isinstance(error, errors.VersionMismatchError):
        info.metadata.update({"got": error.got, "expected": error.expected})
    return code, error.message, _rich(code, error.message, details)


@lru_cache(maxsize=256)
def _overloaded(message: str, reason: str, retry_ms: int) -> tuple[grpc.StatusCode, str, Trailers]:
    """Made once for all that are refused alike: to refuse must cost less than to serve."""
    code = CODES[errors.OverloadedError]
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    return code, message, ((PUSHBACK_KEY, str(retry_ms)), *_rich(code, message, [info, _retry(retry_ms)]))


def _retry(milliseconds: int) -> error_details_pb2.RetryInfo:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(milliseconds)
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _rich(code: grpc.StatusCode, message: str, details: Iterable[Message]) -> Trailers:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return tuple(rpc_status.to_status(status).trailing_metadata)


def from_rpc_error(error: grpc.aio.AioRpcError, dependency: str) -> errors.AisleError:
    """The domain error that `dependency` meant, with what its details say. What Aisle did not write, and what
    means that the dependency is broken rather than the request, becomes `UnavailableError` or `InternalError`."""
    message = error.details() or error.code().name
    details = _Details(error)
    match error.code():
        case grpc.StatusCode.INVALID_ARGUMENT if details.violations:
            return errors.InvalidArgumentError(details.violations)
        case grpc.StatusCode.NOT_FOUND if details.resource is not None:
            return errors.NotFoundError(details.resource.resource_type, details.resource.resource_name)
        case grpc.StatusCode.FAILED_PRECONDITION:
            if details.reason == errors.VersionMismatchError.reason:
                return errors.VersionMismatchError(details.metadata["got"], details.metadata["expected"])
            return errors.FailedPreconditionError(message, reason=details.reason or None)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return errors.OverloadedError(message, reason=details.reason or None, retry_after_s=details.retry_after_s)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.DeadlineError(f"{dependency} did not answer in time")
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.UNIMPLEMENTED | grpc.StatusCode.CANCELLED:
            return errors.UnavailableError(
                details.metadata.get("dependency", dependency) if details.reason else dependency,
                message if details.reason else None,
                reason=details.reason or None,
                retry_after_s=details.retry_after_s,
            )
    return errors.InternalError(f"{dependency} failed ({error.code().name})")


class _Details:
    """The `google.rpc` details of a failed call, as far as Aisle reads them."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.violations: list[errors.FieldViolation] = []
        self.resource: error_details_pb2.ResourceInfo | None = None
        self.retry_after_s = errors.DEFAULT_RETRY_AFTER_S
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin" and isinstance(value, bytes):
                self._read(status_pb2.Status.FromString(value))

    def _read(self, status: status_pb2.Status) -> None:
        for packed in status.details:
            info = error_details_pb2.ErrorInfo()
            bad = error_details_pb2.BadRequest()
            retry = error_details_pb2.RetryInfo()
            resource = error_details_pb2.ResourceInfo()
            if packed.Unpack(info) and info.domain == DOMAIN:
                self.reason = info.reason
                self.metadata = dict(info.metadata)
            elif packed.Unpack(bad):
                self.violations = [errors.FieldViolation(v.field, v.description) for v in bad.field_violations]
            elif packed.Unpack(retry):
                self.retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
            elif packed.Unpack(resource):
                self.resource = resource
