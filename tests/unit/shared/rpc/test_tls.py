"""mTLS over real connections, with certificates made by openssl as the local mesh's are."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from aisle.encoder.v1 import query_encoder_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from deploy.local.certificates import Authority, spiffe_id
from shared.errors import AisleError, OverloadedError, PermissionDeniedError, UnauthenticatedError, UnavailableError
from shared.rpc import channel
from shared.rpc.client import Dependency
from shared.rpc.health import REPLICA
from shared.rpc.interceptor import CallInterceptor
from shared.rpc.status import to_status
from shared.rpc.tls import Callers, server_credentials
from shared.tls import Pem, Renewed, TlsFiles
from tests.unit.shared.rpc.conftest import (
    DEFAULT_TIMEOUT_S,
    MAX_REQUEST_BYTES,
    SERVICE,
    Request,
    Scripted,
)

GATEWAY = spiffe_id("gateway")
Connect = Callable[[TlsFiles | None], Dependency]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority.create(tmp_path / "authority")
    for name in ("gateway", "query_encoder", "reranker"):
        made.issue(name)
    return made


@pytest.fixture
def gateway(authority: Authority) -> TlsFiles:
    return authority.files("gateway")


@pytest.fixture
def refusals() -> dict[str, AisleError]:
    """What the query encoder refuses all calls with, under its name; empty at first."""
    return {}


@pytest.fixture
async def tls_address(authority: Authority, scripted: Scripted, refusals: dict[str, AisleError]) -> AsyncIterator[str]:
    """A query encoder that the gateway alone may call."""
    callers = Callers(frozenset({GATEWAY}))
    interceptor = CallInterceptor(
        DEFAULT_TIMEOUT_S, MAX_REQUEST_BYTES, callers, {SERVICE: lambda _: refusals.get(SERVICE)}
    )
    server = grpc.aio.server(interceptors=[interceptor])
    query_encoder_pb2_grpc.add_QueryEncoderServicer_to_server(scripted, server)
    servicer = health.aio.HealthServicer()
    for served in (SERVICE, REPLICA):
        await servicer.set(served, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(authority.files("query_encoder")))
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
async def connect(tls_address: str) -> AsyncIterator[Connect]:
    async with AsyncExitStack() as stack:

        def to_encoder(files: TlsFiles | None) -> Dependency:
            dependency = Dependency("query_encoder", SERVICE, tls_address, files)
            stack.push_async_callback(dependency.close)
            return dependency

        yield to_encoder


async def call(dependency: Dependency) -> Any:
    stub: Any = query_encoder_pb2_grpc.QueryEncoderStub(dependency.channel)
    return await dependency.call(stub.EncodeQueries, Request(), timeout_s=5)


async def status_of(dependency: Dependency) -> grpc.StatusCode:
    """The code as the caller's library tells it."""
    stub: Any = query_encoder_pb2_grpc.QueryEncoderStub(dependency.channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.EncodeQueries(Request(), timeout=5)
    return refused.value.code()


async def test_the_caller_that_is_allowed_is_answered(connect: Connect, gateway: TlsFiles) -> None:
    dependency = connect(gateway)
    assert await call(dependency) is not None
    assert await dependency.check() is None


async def test_a_caller_in_plain_text_is_refused(connect: Connect) -> None:
    with pytest.raises(UnavailableError):
        await call(connect(None))


async def test_a_caller_without_a_certificate_is_refused(tls_address: str, gateway: TlsFiles) -> None:
    credentials = grpc.ssl_channel_credentials(gateway.authority.read_bytes())
    async with grpc.aio.secure_channel(tls_address, credentials) as anonymous:
        stub: Any = query_encoder_pb2_grpc.QueryEncoderStub(anonymous)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.EncodeQueries(Request(), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_of_another_authority_is_refused(connect: Connect, gateway: TlsFiles, tmp_path: Path) -> None:
    stranger = Authority.create(tmp_path / "another").issue("gateway")
    mixed = TlsFiles(stranger.certificate, stranger.key, gateway.authority)
    assert await status_of(connect(mixed)) is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_with_a_name_that_is_not_allowed_is_denied(connect: Connect, authority: Authority) -> None:
    reranker = connect(authority.files("reranker"))
    assert await status_of(reranker) is grpc.StatusCode.PERMISSION_DENIED
    # Health tells no secret, and operators and proxies ask for it.
    assert await reranker.check() is None


async def test_who_may_not_call_is_denied_and_not_told_to_come_back(
    connect: Connect, authority: Authority, gateway: TlsFiles, refusals: dict[str, AisleError]
) -> None:
    refusals[SERVICE] = OverloadedError("come back later")
    assert await status_of(connect(authority.files("reranker"))) is grpc.StatusCode.PERMISSION_DENIED
    assert await status_of(connect(gateway)) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_caller_whose_certificate_has_no_name_is_not_known(connect: Connect, authority: Authority) -> None:
    nameless = authority.issue("nameless", uri="")
    assert await status_of(connect(nameless)) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_server_with_a_certificate_for_another_service_is_not_talked_to(
    tls_address: str, gateway: TlsFiles
) -> None:
    dependency = Dependency("reranker", SERVICE, tls_address, gateway)
    with pytest.raises(UnavailableError):
        await call(dependency)
    await dependency.close()


async def test_a_server_of_another_authority_is_not_talked_to(
    connect: Connect, gateway: TlsFiles, tmp_path: Path
) -> None:
    another = Authority.create(tmp_path / "another")
    mixed = TlsFiles(gateway.certificate, gateway.key, another.certificate)
    assert await status_of(connect(mixed)) is grpc.StatusCode.UNAVAILABLE


async def test_a_server_presents_the_certificate_that_was_renewed(
    connect: Connect, authority: Authority, gateway: TlsFiles
) -> None:
    assert await call(connect(gateway)) is not None
    # For another service now: whoever connects from here on sees it, and does not want it.
    authority.issue("reranker").certificate.replace(authority.files("query_encoder").certificate)
    authority.files("reranker").key.replace(authority.files("query_encoder").key)
    with pytest.raises(UnavailableError):
        await call(connect(gateway))


async def test_a_half_written_renewal_leaves_the_certificate_in_use(
    connect: Connect, authority: Authority, gateway: TlsFiles
) -> None:
    authority.files("query_encoder").certificate.write_text("-----BEGIN CERTIFICATE-----\n")
    assert await call(connect(gateway)) is not None
    authority.files("query_encoder").key.unlink()
    assert await call(connect(gateway)) is not None


async def test_a_client_presents_the_certificate_that_was_renewed(
    connect: Connect, authority: Authority, gateway: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_LOOK_S", 0.0)
    dependency = connect(gateway)
    assert await call(dependency) is not None
    authority.issue("gateway", uri=spiffe_id("reranker"))
    with pytest.raises(Exception, match="PERMISSION_DENIED"):
        await call(dependency)
    authority.issue("gateway")
    assert await call(dependency) is not None


async def test_a_client_keeps_its_certificate_until_both_files_of_the_next_are_there(
    connect: Connect, authority: Authority, gateway: TlsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_LOOK_S", 0.0)
    dependency = connect(gateway)
    before = dependency.channel.current()  # type: ignore[attr-defined]
    key = gateway.key.read_bytes()
    authority.issue("gateway", uri=spiffe_id("reranker"))
    renewed_key = gateway.key.read_bytes()
    for half_written in (key, renewed_key[:40], b""):
        gateway.key.write_bytes(half_written)
        assert await call(dependency) is not None
        assert dependency.channel.current() is before  # type: ignore[attr-defined]
    gateway.key.write_bytes(renewed_key)
    with pytest.raises(Exception, match="PERMISSION_DENIED"):
        await call(dependency)


def test_a_pair_that_stays_none_is_told_once(authority: Authority, gateway: TlsFiles) -> None:
    renewed = Renewed(gateway)
    key = gateway.key.read_bytes()
    authority.issue("gateway")
    gateway.key.write_bytes(key)
    with capture_logs() as told:
        assert not any(renewed.renew() for _ in range(4))
    assert [line["event"] for line in told] == ["a renewed certificate is not used: it and its key are no pair"]
    assert renewed.pem.key == key


def test_a_certificate_renewed_while_the_first_is_read_is_seen(
    authority: Authority, gateway: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = TlsFiles.read

    def read_just_before_a_renewal(files: TlsFiles) -> Pem:
        pem = read(files)
        authority.issue("gateway")
        return pem

    with monkeypatch.context() as patched:
        patched.setattr(TlsFiles, "read", read_just_before_a_renewal)
        renewed = Renewed(gateway)
    assert renewed.renew()
    assert renewed.pem == gateway.read()


async def test_calls_under_way_outlive_a_renewal(
    connect: Connect, authority: Authority, gateway: TlsFiles, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_LOOK_S", 0.0)
    dependency = connect(gateway)
    begun, finish = asyncio.Event(), asyncio.Event()
    quick = scripted.behaviour

    async def slow(request: Any, context: Any) -> Any:
        begun.set()
        await finish.wait()
        return await quick(request, context)

    scripted.behaviour = slow
    waiting = asyncio.create_task(call(dependency))
    await begun.wait()
    scripted.behaviour = quick
    authority.issue("gateway")
    assert await call(dependency) is not None
    finish.set()
    assert await waiting is not None


def test_both_refusals_stand_in_the_status_table() -> None:
    assert to_status(UnauthenticatedError("who"))[0] is grpc.StatusCode.UNAUTHENTICATED
    assert to_status(PermissionDeniedError("no"))[0] is grpc.StatusCode.PERMISSION_DENIED


def test_keys_are_their_owners_alone(authority: Authority) -> None:
    keys = list(authority.folder.glob("*.key"))
    assert len(keys) == 4
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
