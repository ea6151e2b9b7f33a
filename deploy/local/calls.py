"""Calls that people wait for: with a deadline, timed, their errors in words."""

import time
from collections.abc import Callable
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from deploy.local.errors import LocalError

_TIMEOUT_S = 10.0

Response = TypeVar("Response", bound=Message)


def timed(method: Callable[..., Response], request: Message) -> tuple[Response, float]:
    """The answer, and how many milliseconds it took. Raises `LocalError` when there is none."""
    started = time.perf_counter()
    try:
        response = method(request, timeout=_TIMEOUT_S)
    except grpc.RpcError as error:
        raise LocalError(f"the mesh answered {error.code().name}: {error.details()}") from None
    return response, (time.perf_counter() - started) * 1000
