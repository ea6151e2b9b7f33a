"""What shoppers do, from the service that was told of it to the judgements that are learnt from."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aisle.events.v1 import event_pb2, user_events_pb2

from deploy.local.spec import ROOT
from services.trainer import __main__ as command
from services.trainer.behaviour.archive import Archive
from services.trainer.behaviour.forgetting import forget
from services.trainer.behaviour.log import fetch
from services.trainer.errors import JobError
from services.trainer.prepared import open_prepared
from shared.attribution import DEVELOPMENT_KEY, Attribution, AttributionTokens
from shared.catalogue import write_jsonl
from shared.items import Item
from tests.integration.user_events.client import CART, CLICK, IMPRESSION, PURCHASE, RETURN, SEARCH, VIEW, event
from tests.integration.user_events.process import EventsProcess
from tests.support import logged
from tests.support.service_process import serving

ITEMS = ["good", "fair", "poor", "sent-back", "gone"]
TOKENS = AttributionTokens(DEVELOPMENT_KEY.encode())
SLOW_FETCH = """
import sys, time
from pathlib import Path
from services.trainer.behaviour import archive, log

flush = archive._Writer.flush
archive._Writer.flush = lambda writer: (flush(writer), time.sleep(0.5))
log.fetch(sys.argv[1], archive.Archive(Path(sys.argv[2]), file_events=500))
"""
"""Waits after each file: so that a kill comes before the last one on any machine."""
START = datetime.now(UTC) - timedelta(days=9)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[EventsProcess]:
    with serving(EventsProcess(str(tmp_path / "events.db"), tmp_path / "service.log")) as running:
        yield running


def sent(kind: int, minute: int, user: int, **fields: object) -> event_pb2.Event:
    made = event(kind, user_id=f"shopper {user}", **fields)
    made.occurred_at.FromDatetime(START + timedelta(minutes=minute))
    return made


def visit(number: int, query: str = "Oak Desk", surface: str = "SEARCH") -> list[event_pb2.Event]:
    """One page, and what was done with it: of twenty in a row, fifteen click the good item and ten of these buy it, two
    click the fair one, all buy the one that they send back."""
    led = Attribution(request_id=f"{surface} {query} {number}", surface=surface, query=query)
    token = {"attribution_token": TOKENS.issue(led, ITEMS)}
    of, user = number % 20, number % 10
    events = [
        sent(SEARCH, number, user, query=query),
        sent(IMPRESSION, number, user, item_ids=ITEMS, **token),
        sent(PURCHASE, number, user, item_id="sent-back", **token),
        sent(RETURN, number + 5_000, user, item_id="sent-back"),
        sent(VIEW, number, user, item_id="poor"),
    ]
    if of < 15:
        events.append(sent(CLICK, number, user, item_id="good", **token))
    if of < 10:
        events.append(sent(PURCHASE, number, user, item_id="good", **token))
    if of < 2:
        events.append(sent(CART, number, user, item_id="fair", **token))
    return events


def write(service: EventsProcess, *events: event_pb2.Event) -> None:
    for at in range(0, len(events), 1_000):
        part = events[at : at + 1_000]
        assert service.write(*part).accepted == len(part)


def test_what_was_done_becomes_judgements(service: EventsProcess, tmp_path: Path) -> None:
    """Among it what is not of a search, what too few ask for, what is sent back, and what is not sold any more."""
    write_jsonl([Item(id=name, title=name) for name in ITEMS if name != "gone"], tmp_path / "items.jsonl")
    common = [each for number in range(100) for each in visit(number)]
    other = [each for number in range(20) for each in visit(number, "desk lamp", "HOME")]
    rare = [each for number in range(4) for each in visit(number, "a name and a street")]
    write(service, *common[: len(common) // 2], *other, *rare)
    arguments = [
        *("prepare", "--catalogue", str(tmp_path / "items.jsonl"), "--out", str(tmp_path / "out")),
        *("--archive", str(tmp_path / "log"), "--events", f"127.0.0.1:{service.port}"),
        *("--position-bias", "0", "--shares", "1,0,0"),
    ]
    assert command.main(arguments) == 0
    first = open_prepared(tmp_path / "out").report.behaviour
    write(service, *common[len(common) // 2 :])
    assert command.main(arguments) == 0
    prepared = open_prepared(tmp_path / "out")
    # Each is seen a hundred times. Values, with ten times the average of 0.71: (50 × 6 + 25 + 7.1) / 110 = 3.02 of the
    # good one, (10 × 3 + 7.1) / 110 = 0.34 of the fair one, 7.1 / 110 = 0.06 of the others. The best tenth begins at
    # 1.95; a seventh of that gains as much as grade 1.
    assert prepared.split("train").select("key", "query", "item_id", "grade").rows() == [
        ("oak desk", "Oak Desk", "fair", 1.0),
        ("oak desk", "Oak Desk", "good", 3.0),
        ("oak desk", "Oak Desk", "poor", 0.0),
        ("oak desk", "Oak Desk", "sent-back", 0.0),
    ]
    report = prepared.report.behaviour
    assert first is not None
    assert report is not None
    stored = sum(1 for _ in service.ids())
    searches = 124
    assert first.events < report.events == stored - searches == Archive(tmp_path / "log").events()
    assert {reason: count for reason, count in report.dropped.items() if count} == {
        "unattributed": 124,
        "no_search": 20 * 2 + 15 + 10 + 2,
        "undone": 104,
        "rare_query": 4 * 3 + 2,
    }
    assert report.undoing == 124
    assert report.average_value == pytest.approx(0.71)
    assert report.pairs_dropped == {"little_seen": 0, "unknown_item": 1, "judged": 0}


def test_a_killed_run_goes_on_where_its_last_file_ends(service: EventsProcess, tmp_path: Path) -> None:
    write(service, *(sent(CLICK, number, number, item_id=f"i{number}") for number in range(8_000)))
    target, folder = f"127.0.0.1:{service.port}", tmp_path / "log"
    child = subprocess.Popen([sys.executable, "-c", SLOW_FETCH, target, folder], cwd=ROOT)
    deadline = time.monotonic() + 30
    while not list(folder.glob("events-*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=10)
    archive = Archive(folder, file_events=500)
    there = archive.events()
    assert 500 <= there < 8_000
    assert fetch(target, archive) == 8_000 - there
    items = [name for file in archive.files for name in pq.read_table(file)["item_id"].to_pylist()]
    assert sorted(items) == sorted(f"i{number}" for number in range(8_000))
    assert fetch(target, archive) == 0


def test_who_is_forgotten_is_forgotten_by_the_archive(service: EventsProcess, tmp_path: Path) -> None:
    """More users than are asked about at once; one leaves, one leaves and comes back."""
    write(service, *(sent(CLICK, number, number, item_id=f"i{number}") for number in range(1_200)))
    target, archive = f"127.0.0.1:{service.port}", Archive(tmp_path / "log", file_events=500)
    fetch(target, archive)
    assert forget(target, archive) == 0
    for leaves in (7, 1_100):
        service.stub.ForgetUser(user_events_pb2.ForgetUserRequest(user_id=f"shopper {leaves}"), timeout=5)
    write(service, sent(CLICK, 0, 7, item_id="again"))
    assert fetch(target, archive) == 1
    assert forget(target, archive) == 2
    left = [name for file in archive.files for name in pq.read_table(file)["item_id"].to_pylist()]
    assert sorted(left) == sorted({f"i{number}" for number in range(1_200)} - {"i7", "i1100"} | {"again"})
    assert fetch(target, archive) == 0


def test_an_archive_of_another_log_is_left_alone(service: EventsProcess, tmp_path: Path) -> None:
    rows = [logged.event(user=f"elsewhere {number:06}") for number in range(20)]
    archive = logged.archive(tmp_path / "log", *rows)
    with pytest.raises(JobError, match=r"knows none of the 20 users in .*/log: is it another log"):
        forget(f"127.0.0.1:{service.port}", archive)
    assert archive.events() == 20


def test_a_service_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.trainer.behaviour.log._WAIT_S", 0.01)
    with pytest.raises(JobError, match=r"--events 127\.0\.0\.1:1: .*run it again to go on"):
        fetch("127.0.0.1:1", Archive(tmp_path / "log"))
