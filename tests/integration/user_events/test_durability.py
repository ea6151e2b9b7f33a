"""Processes that are killed while shops write: what was acknowledged is there afterwards, once."""

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from aisle.events.v1 import user_events_pb2 as pb

from tests.integration.user_events.client import SEARCH, event, fresh
from tests.integration.user_events.conftest import migrate
from tests.integration.user_events.process import EventsProcess, Shop
from tests.support.postgres import PostgresServer, running_server
from tests.support.service_process import serving

pytestmark = pytest.mark.timeout(300)

KILLS = 3
ROUND_S = 1.0


def acknowledged(shop: Shop, more_than: int) -> None:
    """Returns once the shop has had more than so many events acknowledged."""
    until = time.monotonic() + 30
    while len(shop.acknowledged) <= more_than:
        assert time.monotonic() < until, f"nothing was acknowledged: {shop.failures}"
        time.sleep(0.02)


def check(service: EventsProcess, shop: Shop) -> None:
    ids = service.ids()
    assert len(ids) == len(set(ids)), "something is there twice"
    assert shop.acknowledged <= set(ids), "something that was acknowledged is gone"


def test_the_service_is_killed(uri: str, tmp_path: Path) -> None:
    service = EventsProcess(uri, tmp_path / "log")
    service.wait_until(serving=True)
    shop = Shop(service)
    shop.start()
    try:
        for _ in range(KILLS):
            acknowledged(shop, len(shop.acknowledged) + 50)
            time.sleep(ROUND_S)
            service.end()
            assert service.process.returncode == -9
            service = EventsProcess(uri, tmp_path / "log")
            shop.service = service
            service.wait_until(serving=True)
        acknowledged(shop, len(shop.acknowledged) + 50)
        shop.stop()
        check(service, shop)
        assert shop.failures <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    finally:
        shop.stop()
        service.end()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server to be hard on."""
    with running_server() as server:
        yield server


@pytest.mark.postgres
def test_postgres_is_killed(own_server: PostgresServer, tmp_path: Path) -> None:
    uri = migrated(own_server)
    with serving(EventsProcess(uri, tmp_path / "log")) as service:
        shop = Shop(service)
        shop.start()
        try:
            for _ in range(KILLS):
                acknowledged(shop, len(shop.acknowledged) + 50)
                time.sleep(ROUND_S)
                own_server.kill()
                service.wait_until(serving=False)
                own_server.start()
                service.wait_until(serving=True)
            acknowledged(shop, len(shop.acknowledged) + 50)
            shop.stop()
            check(service, shop)
            assert shop.failures <= {grpc.StatusCode.UNAVAILABLE}
        finally:
            shop.stop()


@pytest.mark.postgres
def test_a_server_that_hangs_is_unavailable_and_comes_back(own_server: PostgresServer, tmp_path: Path) -> None:
    uri = migrated(own_server)
    with serving(EventsProcess(uri, tmp_path / "log", read_timeout_s=0.3, write_timeout_s=0.5)) as service:
        sent = event()
        assert service.write(sent).accepted == 1
        own_server.pause()
        try:
            service.wait_until(serving=False)
            for call in (
                lambda: service.write(event()),
                lambda: service.stub.GetHistory(pb.GetHistoryRequest(user_id=sent.user_id), timeout=5),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    call()
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.RpcError) as refused:
                service.stub.GetHistory(pb.GetHistoryRequest(user_id=sent.user_id), timeout=0.1)
            assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        finally:
            own_server.resume()
        service.wait_until(serving=True)
        assert service.write(sent).duplicates == 1
        history = service.stub.GetHistory(pb.GetHistoryRequest(user_id=sent.user_id), timeout=5)
        assert [past.id for past in history.events] == [sent.id]


@pytest.mark.postgres
def test_the_service_starts_while_its_server_is_away(own_server: PostgresServer, tmp_path: Path) -> None:
    uri = migrated(own_server)
    own_server.kill()
    service = EventsProcess(uri, tmp_path / "log")
    try:
        with pytest.raises(grpc.RpcError) as refused:
            service.stub.GetHistory(pb.GetHistoryRequest(user_id="u"), timeout=20, wait_for_ready=True)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not service.serving()
        own_server.start()
        service.wait_until(serving=True)
        assert service.write(event()).accepted == 1
    finally:
        service.end()


def test_no_log_line_and_no_metric_says_who_it_was(uri: str, tmp_path: Path) -> None:
    user, visit = fresh("user"), fresh("visit")
    log = tmp_path / "log"
    with serving(EventsProcess(uri, log, log_level="debug")) as service:
        service.write(
            event(user_id=user, session_id=visit),
            event(SEARCH, user_id=user, query="secret wish"),
            event(0, user_id=user, item_id="secret-item"),
        )
        request = {"user_id": user}
        service.stub.GetHistory(pb.GetHistoryRequest(**request), timeout=5)
        for bad in (
            lambda: service.stub.GetHistory(pb.GetHistoryRequest(**request, limit=9_999), timeout=5),
            lambda: service.stub.ForgetUser(pb.ForgetUserRequest(user_id=fresh("user")), timeout=5),
        ):
            with pytest.raises(grpc.RpcError):
                bad()
        list(service.stub.ExportUser(pb.ExportUserRequest(**request), timeout=5))
        service.stub.ForgetUser(pb.ForgetUserRequest(**request), timeout=5)
        with urllib.request.urlopen(f"http://127.0.0.1:{service.metrics_port}/metrics", timeout=5) as answer:
            counted = answer.read().decode()
        service.process.terminate()
        service.process.wait(timeout=10)
    told = log.read_text()
    assert "ForgetUser" in told
    for line in (
        'aisle_events_stored_total{type="VIEW"} 1.0',
        'aisle_events_stored_total{type="PURCHASE"} 0.0',
        'aisle_events_refused_total{reason="INVALID_ARGUMENT"} 1.0',
        'aisle_events_deleted_total{reason="forgotten"} 2.0',
        "aisle_events_waiting 0.0",
    ):
        assert line in counted
    for secret in (user, visit, "secret"):
        assert secret not in told
        assert secret not in counted


def migrated(server: PostgresServer) -> str:
    uri = server.new_database()
    migrate(uri)
    return uri
