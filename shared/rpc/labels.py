"""Labels of gRPC metrics, in go-grpc-middleware's spelling."""

import grpc

_GO = {grpc.StatusCode.OK: "OK", grpc.StatusCode.CANCELLED: "Canceled"}


def split(path: str) -> tuple[str, str]:
    """`/aisle.gateway.v1.Gateway/Search` → (`aisle.gateway.v1.Gateway`, `Search`)."""
    _, service, method = path.split("/")
    return service, method


def kind(client_streaming: bool, server_streaming: bool) -> str:
    """`unary`, `client_stream`, `server_stream` or `bidi_stream`."""
    if client_streaming and server_streaming:
        return "bidi_stream"
    if client_streaming:
        return "client_stream"
    return "server_stream" if server_streaming else "unary"


def code(status: grpc.StatusCode) -> str:
    """`DEADLINE_EXCEEDED` → `DeadlineExceeded`."""
    # Go writes two of them in its own way.
    return _GO.get(status) or status.name.title().replace("_", "")
