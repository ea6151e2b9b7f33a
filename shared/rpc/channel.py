"""A channel whose certificate is renewed under it: gRPC's own keeps for good the one it was opened with."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from shared.rpc.tls import channel_credentials
from shared.tls import Renewed, TlsFiles

_LOOK_S = 1.0
"""Between looks at the files. They are renewed hours before they end; a test does not wait for hours."""
_GRACE_S = 60.0
"""For calls on the channel before to end: longer than any deadline the services set each other."""


class RenewedChannel:
    """As `grpc.aio.Channel` for generated stubs. A certificate renewed on disk is presented from the next call on;
    calls that run end on the connection they began on. Raises `OSError` when a file cannot be read."""

    def __init__(self, target: str, files: TlsFiles, options: Sequence[tuple[str, Any]]) -> None:
        self._target = target
        self._options = options
        self._renewed = Renewed(files)
        self._looked = time.monotonic()
        self._ended = asyncio.Event()
        self._retiring: set[asyncio.Task[None]] = set()
        self._channel = self._open()

    def unary_unary(self, path: str, *arguments: Any, **options: Any) -> Any:
        """A method of a stub, as all of these."""
        return _Method(self, "unary_unary", path, arguments, options)

    def unary_stream(self, path: str, *arguments: Any, **options: Any) -> Any:
        """The same for a stream of responses."""
        return _Method(self, "unary_stream", path, arguments, options)

    def stream_unary(self, path: str, *arguments: Any, **options: Any) -> Any:
        """The same for a stream of requests."""
        return _Method(self, "stream_unary", path, arguments, options)

    def stream_stream(self, path: str, *arguments: Any, **options: Any) -> Any:
        """The same for streams both ways."""
        return _Method(self, "stream_stream", path, arguments, options)

    async def close(self) -> None:
        """Ends what runs on it."""
        self._ended.set()
        await asyncio.gather(*self._retiring, self._channel.close())

    def current(self) -> grpc.aio.Channel:
        """The channel with the newest certificate."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            if self._renewed.renew():
                task = asyncio.create_task(self._retire(self._channel))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
                self._channel = self._open()
        return self._channel

    async def _retire(self, channel: grpc.aio.Channel) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), _GRACE_S)
        await channel.close()

    def _open(self) -> grpc.aio.Channel:
        credentials = channel_credentials(self._renewed.pem)
        return grpc.aio.secure_channel(self._target, credentials, options=self._options)


class _Method:
    """One method, made anew for each channel."""

    def __init__(
        self, owner: RenewedChannel, kind: str, path: str, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        # The name under which gRPC's own methods keep their path.
        self._method = path
        self._owner = owner
        self._make: Callable[[grpc.aio.Channel], Any] = lambda channel: getattr(channel, kind)(
            path, *arguments, **options
        )
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        channel = self._owner.current()
        if channel is not self._channel:
            self._channel, self._call = channel, self._make(channel)
        return self._call(*arguments, **options)
