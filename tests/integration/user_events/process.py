"""The service as a process of its own, and a shop that writes to it without a pause."""

import threading
from pathlib import Path

import grpc
from aisle.events.v1 import event_pb2, user_events_pb2_grpc
from aisle.events.v1 import user_events_pb2 as pb

from tests.integration.user_events.client import event
from tests.support.service_process import ServiceProcess

CALL_S = 5.0


class EventsProcess(ServiceProcess):
    """`python -m services.user_events` over `uri`."""

    name = "user_events"

    def __init__(self, uri: str, log: Path, **settings: object) -> None:
        super().__init__(log, uri=uri, **{"relations_every_s": 0, **settings})
        self.stub = user_events_pb2_grpc.UserEventsStub(self.channel)

    def write(self, *events: event_pb2.Event) -> pb.WriteEventsResponse:
        return self.stub.WriteEvents(pb.WriteEventsRequest(events=events), timeout=CALL_S)

    def ids(self) -> list[str]:
        """Of all events that are kept."""
        pages = self.stub.StreamEvents(pb.StreamEventsRequest(), timeout=30)
        return [logged.event.id for page in pages for logged in page.events]


class Shop:
    """Writes from some threads until it is told to stop. What fails is sent again, as shops do."""

    def __init__(self, service: EventsProcess, threads: int = 4) -> None:
        self.acknowledged: set[str] = set()
        self.failures: set[grpc.StatusCode] = set()
        self.service = service
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            batch = [event(user_id=f"user-{number}") for _ in range(7)]
            while not self._stop.is_set():
                try:
                    answer = self.service.write(*batch)
                except grpc.RpcError as error:
                    self.failures.add(error.code())
                    self._stop.wait(0.02)
                    continue
                except ValueError:
                    # The channel of a service that was killed is closed under it.
                    self._stop.wait(0.02)
                    continue
                if answer.accepted == len(batch):
                    self.acknowledged.update(one.id for one in batch)
                break
