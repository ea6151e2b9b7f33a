"""Bytes that are no valid request name their field, and cost little however they are made."""

import time

import pytest
from aisle.catalog.v1 import filter_pb2, item_pb2
from aisle.gateway.v1 import catalog_pb2, gateway_pb2
from hypothesis import given
from hypothesis import strategies as st

from shared.rpc.decode import _MAX_FIELDS, Undecodable, tolerant

BAD = b"\xff\xfe"
NO_MESSAGE = Undecodable("request", "is not a valid protobuf message of the method's request type")


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field as protobuf writes it."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def item(**numbers: bytes) -> bytes:
    """An item of raw fields, by number (`_2=b"title"`)."""
    return b"".join(field(int(name[1:]), content) for name, content in numbers.items())


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (field(1, item(_1=BAD)), "items[0].id"),
        (field(1, item(_1=b"1")) + field(1, item(_1=b"2", _2=BAD)), "items[1].title"),
        (field(1, item(_1=b"1") + field(5, b"Books") + field(5, BAD)), "items[0].category_path[1]"),
        (field(1, field(6, field(1, BAD))), "items[0].price.currency_code"),
        (field(1, field(12, field(1, b"color") + field(2, field(1, BAD)))), "items[0].attributes[0].value.text[0]"),
    ],
)
def test_the_string_at_fault_is_named_wherever_it_stands(message: bytes, path: str) -> None:
    decoded = tolerant(catalog_pb2.UpsertItemsRequest.FromString)(message)
    assert decoded == Undecodable(path, "must be valid UTF-8")


def test_what_can_be_read_is_read() -> None:
    sent = catalog_pb2.UpsertItemsRequest(items=[item_pb2.Item(id="1", title="größer 椅子")])
    assert tolerant(catalog_pb2.UpsertItemsRequest.FromString)(sent.SerializeToString()) == sent


@given(st.binary(max_size=200))
def test_no_bytes_raise(message: bytes) -> None:
    tolerant(gateway_pb2.SearchRequest.FromString)(message)


def nested(depth: int) -> bytes:
    """A filter that negates a filter that negates ….

    Built back to front in one buffer: by wrapping, a deep one would take minutes.
    """
    parts: list[bytes] = []
    size = 0
    for _ in range(depth):
        head = varint(filter_pb2.Filter.NEGATE_FIELD_NUMBER << 3 | 2) + varint(size)
        parts.append(head)
        size += len(head)
    return b"".join(reversed(parts))


@pytest.mark.parametrize(
    "message",
    [field(2, nested(500_000)), b"\x08" + b"\xff" * 4_000_000, field(99, b"\xff" * 4_000_000) + b"\x0f"],
    ids=["nested half a million deep", "a number of four million digits", "an unknown field"],
)
def test_bytes_made_to_hurt_are_refused_at_once(message: bytes) -> None:
    started = time.process_time()
    decoded = tolerant(gateway_pb2.SearchRequest.FromString)(message)
    assert decoded == NO_MESSAGE
    assert time.process_time() - started < 1


def test_a_string_is_looked_for_in_so_many_fields_of_all_levels_together() -> None:
    decode = tolerant(catalog_pb2.UpsertItemsRequest.FromString)
    good, bad = field(1, item(_1=b"1")), field(1, item(_1=BAD))
    most = _MAX_FIELDS // 2
    assert decode(good * (most - 1) + bad) == Undecodable(f"items[{most - 1}].id", "must be valid UTF-8")
    assert decode(good * most + bad) == NO_MESSAGE
