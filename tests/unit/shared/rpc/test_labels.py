"""Labels are spelt as existing dashboards expect them."""

import grpc
import pytest

from shared.rpc import labels


def test_codes_are_spelt_as_go_spells_them() -> None:
    assert {labels.code(status) for status in grpc.StatusCode} == {
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    }


@pytest.mark.parametrize(
    ("streams", "kind"),
    [
        ((False, False), "unary"),
        ((True, False), "client_stream"),
        ((False, True), "server_stream"),
        ((True, True), "bidi_stream"),
    ],
)
def test_kinds(streams: tuple[bool, bool], kind: str) -> None:
    assert labels.kind(*streams) == kind


def test_a_path_is_a_service_and_a_method() -> None:
    assert labels.split("/aisle.gateway.v1.Gateway/Search") == ("aisle.gateway.v1.Gateway", "Search")
