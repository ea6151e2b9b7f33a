"""gRPC is told how to wait for its connections before it is imported, in words that it knows."""

import subprocess
import sys

_SERVER = """
import sys, services
assert "grpc" not in sys.modules, "too late"
import asyncio, os, grpc

async def main():
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await server.stop(0)

asyncio.run(main())
print(os.environ["GRPC_EXPERIMENTS"])
"""


def _started(**env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", _SERVER], capture_output=True, text=True, timeout=50, check=True, env=env
    )


def test_grpc_knows_what_it_is_told() -> None:
    done = _started()
    assert done.stdout == "-event_engine_client\n"
    # "Unknown experiment" once gRPC has dropped one: then the setting can go.
    assert done.stderr == ""


def test_who_runs_a_service_may_say_otherwise() -> None:
    done = _started(GRPC_EXPERIMENTS="event_engine_client,event_engine_listener")
    assert done.stdout == "event_engine_client,event_engine_listener\n"
