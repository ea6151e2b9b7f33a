"""A name server that says what a test tells it: one name, IPv4 addresses."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

_A, _IN, _TTL_S = 1, 1, 0
_ANSWER, _POINTER_TO_QUESTION, _HEADER_BYTES = 0x8180, 0xC00C, 12
_TYPE_AND_CLASS_BYTES = 4


class Names(asyncio.DatagramProtocol):
    """Answers every question for an address with `addresses`, and any other with nothing (RFC 1035)."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = list(addresses)
        self.asked = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        end = data.index(b"\0", _HEADER_BYTES) + 1 + _TYPE_AND_CLASS_BYTES
        question = data[_HEADER_BYTES:end]
        (kind,) = struct.unpack_from("!H", question, len(question) - _TYPE_AND_CLASS_BYTES)
        found = self.addresses if kind == _A else []
        self.asked += kind == _A
        header = data[:2] + struct.pack("!HHHHH", _ANSWER, 1, len(found), 0, 0)
        records = (
            struct.pack("!HHHIH", _POINTER_TO_QUESTION, _A, _IN, _TTL_S, 4) + socket.inet_aton(address)
            for address in found
        )
        self._transport.sendto(header + question + b"".join(records), addr)


@asynccontextmanager
async def names(addresses: Sequence[str]) -> AsyncIterator[tuple[Names, str]]:
    """A name server, and where it is asked (`host:port`)."""
    loop = asyncio.get_running_loop()
    transport, told = await loop.create_datagram_endpoint(lambda: Names(addresses), local_addr=("127.0.0.1", 0))
    try:
        yield told, "127.0.0.1:{1}".format(*transport.get_extra_info("sockname"))
    finally:
        transport.close()
