"""Waiting for what takes its time, but not for ever."""

import time
from collections.abc import Callable

import grpc


def eventually(holds: Callable[[], bool], within_s: float) -> None:
    """Returns once `holds`; a call that fails meanwhile says no. Fails after `within_s` seconds."""
    until = time.monotonic() + within_s
    while True:
        try:
            if holds():
                return
        except grpc.RpcError:
            pass
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.1)
