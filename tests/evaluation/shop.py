"""The running mesh as a method: items through the gateway, behaviour through `UserEvents`, lists from `Recommend`."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import grpc
from aisle.catalog.v1 import filter_pb2
from aisle.encoder.v1 import query_encoder_pb2
from aisle.events.v1 import event_pb2, user_events_pb2, user_events_pb2_grpc
from aisle.gateway.v1 import catalog_pb2, catalog_pb2_grpc, gateway_pb2, gateway_pb2_grpc

from deploy.local.mesh import Mesh
from deploy.local.spec import ROOT, MeshSpec
from shared.rpc.items import item_to_proto
from tests.evaluation.datasets.interactions import Dataset, Fold
from tests.evaluation.metrics import DEPTH, Lists

NEW = "new"
"""Tag of the items of a cold fold, by which the request asks for them alone. The text that is encoded has no tags."""

_ITEMS_AT_ONCE = 128
_EVENTS_AT_ONCE = 1_000
_CALLERS = 4
_IMPORT_S, _WRITE_S, _ANSWER_S = 600.0, 60.0, 30.0


@dataclass
class Answers:
    """What the gateway recommended to the users of a fold."""

    lists: Lists
    degraded: dict[str, int] = field(default_factory=dict)
    """How many answers left something out, by reason."""
    median_ms: float = 0.0
    """Of the gateway's own clock, with `_CALLERS` at once."""


class Shop:
    """A mesh that holds the items and the history of one fold."""

    def __init__(self, mesh: Mesh, dataset: Dataset, fold: Fold) -> None:
        self._dataset = dataset
        self._fold = fold
        self._mesh = mesh
        self._numbers = {item.id: number for number, item in enumerate(dataset.items)}
        self._front = grpc.insecure_channel(mesh.address("gateway"))
        self._log = grpc.insecure_channel(mesh.address("user_events"))

    def fill(self) -> None:
        """Loads the items, then the history, then has the relations learned. Raises `RuntimeError` where the mesh does
        not take everything."""
        new = {self._dataset.items[number].id for number in self._fold.candidates} if self._fold.is_cold else set()
        rows = [item_to_proto(replace(item, tags=(NEW,)) if item.id in new else item) for item in self._dataset.items]
        batches = (catalog_pb2.ImportItemsRequest(items=part) for part in _parts(rows, _ITEMS_AT_ONCE))
        *_, last = catalog_pb2_grpc.CatalogStub(self._front).ImportItems(batches, timeout=_IMPORT_S)
        if last.accepted != len(rows):
            raise RuntimeError(f"the catalogue took {last.accepted} of {len(rows)} items: {last.errors[:3]}")
        with ThreadPoolExecutor(_CALLERS) as callers:
            for _ in callers.map(self._write, _parts(list(self._events()), _EVENTS_AT_ONCE)):
                pass
        service = self._mesh.spec.service("user_events")
        job = [sys.executable, "-m", "services.user_events.relations"]
        subprocess.run(job, cwd=ROOT, env=self._mesh.spec.environment(service), check=True)

    def recommend(self, user_model: str) -> Answers:
        """Each user's first page. `user_model` is `WEIGHTED_MEAN` or `TEXT`."""
        with ThreadPoolExecutor(_CALLERS) as callers:
            users = self._fold.users.tolist()
            responses = list(callers.map(lambda user: self._ask(user, user_model), users))
        answers = Answers(
            {
                user: [self._numbers[one.item.id] for one in answer.results]
                for user, answer in zip(users, responses, strict=True)
            }
        )
        for answer in responses:
            for left_out in answer.info.degraded:
                reason = gateway_pb2.DegradedReason.Name(left_out.reason).removeprefix("DEGRADED_REASON_")
                answers.degraded[reason] = answers.degraded.get(reason, 0) + 1
        answers.median_ms = median(answer.info.timings[-1].milliseconds for answer in responses)
        return answers

    def _events(self) -> Iterator[event_pb2.Event]:
        history = self._fold.history
        # The service counts recency from now; the shop's last day is made to be today.
        shift = int(time.time()) - 1 - int(history.times_s[-1])
        for number, (user, item, at) in enumerate(zip(history.users, history.items, history.times_s, strict=True)):
            event = event_pb2.Event(
                id=str(number),
                type=event_pb2.EVENT_TYPE_PURCHASE,
                user_id=self._dataset.user_ids[user],
                item_id=self._dataset.items[item].id,
            )
            event.occurred_at.FromSeconds(int(at) + shift)
            yield event

    def _write(self, events: Sequence[event_pb2.Event]) -> None:
        stub = user_events_pb2_grpc.UserEventsStub(self._log)
        written = stub.WriteEvents(user_events_pb2.WriteEventsRequest(events=events), timeout=_WRITE_S)
        if written.accepted != len(events):
            raise RuntimeError(f"the log took {written.accepted} of {len(events)} events: {written.errors[:3]}")

    def _ask(self, user: int, user_model: str) -> gateway_pb2.RecommendResponse:
        request = gateway_pb2.RecommendRequest(
            context=gateway_pb2.RECOMMEND_CONTEXT_HOME,
            user_id=self._dataset.user_ids[user],
            page_size=DEPTH,
            exclude_seen=True,
            exclude_purchased=True,
            user_model=query_encoder_pb2.UserModel.Value(f"USER_MODEL_{user_model}"),
        )
        if self._fold.is_cold:
            request.filter.CopyFrom(filter_pb2.Filter(text=filter_pb2.TextCondition(field="tags", values=[NEW])))
        return gateway_pb2_grpc.GatewayStub(self._front).Recommend(request, timeout=_ANSWER_S)

    def close(self) -> None:
        self._front.close()
        self._log.close()


_TOLD = {
    # What is answered is measured, not how fast: on a busy machine no cap is to cost a user a part of the answer.
    "gateway": {f"AISLE_GATEWAY_{stage}_CAP_S": "10" for stage in ("ENCODE", "RETRIEVE", "READ", "HISTORY")},
    "vector_retrieval": {"AISLE_VECTOR_RETRIEVAL_SEARCH_TIMEOUT_S": "10"},
    # The job runs when everything is written, and not beside it.
    "user_events": {"AISLE_USER_EVENTS_READ_TIMEOUT_S": "10", "AISLE_USER_EVENTS_RELATIONS_EVERY_S": "0"},
}


@contextmanager
def running(dataset: Dataset, fold: Fold, folder: Path) -> Iterator[Shop]:
    """A mesh on free ports whose store, log and logs lie in `folder`, filled with `fold`."""
    spec = MeshSpec.on_free_ports(index=folder / "index" / "milvus.db", folder=folder, env=_TOLD)
    with Mesh(spec, shared=False) as mesh:
        shop = Shop(mesh, dataset, fold)
        try:
            shop.fill()
            yield shop
        finally:
            shop.close()


def _parts(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (rows[at : at + size] for at in range(0, len(rows), size))
