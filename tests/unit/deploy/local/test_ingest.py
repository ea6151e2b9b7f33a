"""A file through a gateway: order, acknowledgements, refusals, and an end that says how far it came."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from aisle.common.v1 import row_error_pb2
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc

from deploy.local import ingest
from deploy.local.errors import LocalError
from deploy.local.ingest import Progress

Answer = Callable[[int, Any], Any]


class Gateway(catalog_pb2_grpc.CatalogServicer):
    """Keeps what it is sent. `fails_at`: the batch at which it gives up."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.titles: dict[str, str] = {}
        self.batches: list[int] = []
        self._fails_at = fails_at
        self.done = threading.Event()

    def ImportItems(self, request_iterator: Any, context: Any) -> Iterator[Any]:
        rows = rejected = 0
        for number, request in enumerate(request_iterator):
            if number == self._fails_at:
                context.abort(grpc.StatusCode.UNAVAILABLE, "out of order")
            self.batches.append(len(request.items))
            errors = []
            for item in request.items:
                if item.title == "refused":
                    rejected += 1
                    errors.append(
                        row_error_pb2.RowError(row=rows, item_id=item.id, field="title", message="is not wanted")
                    )
                else:
                    self.titles[item.id] = item.title
                rows += 1
            yield catalog_pb2.ImportItemsResponse(rows=rows, accepted=rows - rejected, rejected=rejected, errors=errors)
        self.done.set()


@contextmanager
def served(gateway: Gateway) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    catalog_pb2_grpc.add_CatalogServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def catalogue(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "shop.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(path: Path, target: str, mapping: str = "") -> tuple[Progress, list[float], list[str]]:
    fractions: list[float] = []
    reasons: list[str] = []

    def observe(progress: Progress) -> None:
        fractions.append(progress.fraction)
        reasons.extend(progress.reasons)
        progress.reasons.clear()

    seen: list[str] = []
    progress = ingest.ingest(path, mapping, target, observe, lambda item: seen.append(item.id))
    assert len(seen) >= progress.accepted
    return progress, fractions, reasons


def test_everything_arrives_in_batches_and_the_bar_only_grows(tmp_path: Path) -> None:
    gateway = Gateway()
    rows: list[dict[str, object]] = [{"id": str(i), "title": f"thing {i}"} for i in range(300)]
    with served(gateway) as target:
        progress, fractions, reasons = load(catalogue(tmp_path, rows), target)
    assert gateway.batches == [128, 128, 44]
    assert gateway.titles == {str(i): f"thing {i}" for i in range(300)}
    assert (progress.accepted, progress.rejected, reasons) == (300, 0, [])
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_long_items_make_smaller_batches(tmp_path: Path) -> None:
    gateway = Gateway()
    rows: list[dict[str, object]] = [{"id": str(i), "title": "t", "description": "x" * 19_000} for i in range(128)]
    with served(gateway) as target:
        load(catalogue(tmp_path, rows), target)
    assert max(gateway.batches) * 19_000 <= ingest.BATCH_BYTES
    assert sum(gateway.batches) == 128


def test_bad_rows_are_told_with_line_and_reason_by_whoever_refuses_them(tmp_path: Path) -> None:
    gateway = Gateway()
    rows: list[dict[str, object]] = [{"id": "1", "title": "one"}, {"id": "2"}, {"id": "3", "title": "refused"}]
    with served(gateway) as target:
        progress, _, reasons = load(catalogue(tmp_path, rows), target)
    assert (progress.accepted, progress.rejected) == (1, 2)
    assert reasons == ["line 2: title: must not be empty", "item '3': title: is not wanted"]


def test_the_last_of_two_rows_with_one_id_stands(tmp_path: Path) -> None:
    gateway = Gateway()
    rows: list[dict[str, object]] = [
        {"id": "1", "title": "old"},
        {"id": "2", "title": "x"},
        {"id": "1", "title": "new"},
    ]
    with served(gateway) as target:
        progress, _, _ = load(catalogue(tmp_path, rows), target)
    assert gateway.titles == {"1": "new", "2": "x"}
    assert progress.accepted == 2


def test_columns_are_mapped(tmp_path: Path) -> None:
    gateway = Gateway()
    with served(gateway) as target:
        load(catalogue(tmp_path, [{"code": "1", "label": "one"}]), target, "id=code,title=label")
    assert gateway.titles == {"1": "one"}


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_an_import_that_is_cut_off_says_how_far_it_came(tmp_path: Path, fails_at: int) -> None:
    rows: list[dict[str, object]] = [{"id": str(i), "title": f"thing {i}"} for i in range(600)]
    with served(Gateway(fails_at)) as target, pytest.raises(LocalError) as stopped:
        load(catalogue(tmp_path, rows), target)
    assert f"stopped after {fails_at * 128:,} items" in str(stopped.value)
    assert "Run it again" in str(stopped.value)


def test_no_gateway_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="stopped after 0 items: the gateway is not available"):
        load(catalogue(tmp_path, [{"id": "1", "title": "one"}]), "127.0.0.1:1")


@pytest.mark.parametrize(("rows", "what"), [([], "holds no rows"), ([{"id": "1", "title": ""}], "none of 1 rows")])
def test_a_file_without_a_usable_row_is_an_error(tmp_path: Path, rows: list[dict[str, object]], what: str) -> None:
    with served(Gateway()) as target, pytest.raises(LocalError, match=what):
        load(catalogue(tmp_path, rows), target)
