"""Requests that are no valid protobuf become INVALID_ARGUMENT naming the field, where gRPC would say INTERNAL."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

# What is read here is what protobuf refused, so it may be made to hurt: the first two bounds are protobuf's own.
_MAX_DEPTH = 100
_MAX_VARINT_BYTES = 10
_MAX_FIELDS = 10_000
"""Read of one message, on all levels together: tens of milliseconds of the event loop. What is wrong behind them is
refused without its name."""

Bytes = memoryview
"""A view, because every level of a message would otherwise copy all that is below it."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Stands in for a request that could not be read. `field` is the path at fault, `request` where none is."""

    field: str
    description: str


def tolerant(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """`deserializer`, returning `Undecodable` where it would raise `DecodeError`."""

    def deserialize(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError:
            message = getattr(deserializer, "__self__", None)
            descriptor = getattr(message, "DESCRIPTOR", None)
            field = None
            if descriptor is not None:
                field = _first_bad_string(memoryview(data), descriptor, iter(range(_MAX_FIELDS)))
            if field is not None:
                return Undecodable(field, "must be valid UTF-8")
            return Undecodable("request", "is not a valid protobuf message of the method's request type")

    return deserialize


def _first_bad_string(
    data: Bytes, descriptor: Descriptor, budget: Iterator[int], at: str = "", depth: int = 0
) -> str | None:
    """The path of the first string in `data` that is not UTF-8; `None` when the bytes are wrong in another way, or when
    `budget` ends first: each field that is read takes one of it."""
    counts: dict[int, int] = {}
    try:
        for number, value in _length_delimited(data, budget):
            field = descriptor.fields_by_number.get(number)
            if field is None:
                continue
            index = counts.get(number, 0)
            counts[number] = index + 1
            path = f"{at}.{field.name}" if at else field.name
            if field.is_repeated:
                path += f"[{index}]"
            if field.type == FieldDescriptor.TYPE_STRING and not _is_utf8(value):
                return path
            if field.message_type is not None and depth < _MAX_DEPTH:
                found = _first_bad_string(value, field.message_type, budget, path, depth + 1)
                if found is not None:
                    return found
    except (IndexError, ValueError):
        return None
    return None


def _is_utf8(value: Bytes) -> bool:
    try:
        str(value, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _length_delimited(data: Bytes, budget: Iterator[int]) -> Iterator[tuple[int, Bytes]]:
    """(field number, bytes) of each length-delimited field on this level of `data`."""
    at = 0
    while at < len(data):
        if next(budget, None) is None:
            raise ValueError("too many fields")
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(data, at)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        elif kind == _LENGTH:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("truncated")
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError("group or unknown wire type")


def _varint(data: Bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a varint without an end")
