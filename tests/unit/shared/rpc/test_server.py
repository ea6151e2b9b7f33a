"""How a service's process is set up before it serves. The rest of a server is tested on real processes."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from shared.rpc import server
from shared.settings import ServiceSettings

Started = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """What `look` sees at the moment a process that was set up begins to serve."""

    def start(look: Callable[[], Any]) -> Any:
        found: list[Any] = []

        async def serve(settings: ServiceSettings, build: object) -> None:
            found.append(look())

        monkeypatch.setattr(server, "serve", serve)
        server.main("service", ServiceSettings, lambda settings, stack: None)  # type: ignore[arg-type,return-value]
        (only,) = found
        return only

    monkeypatch.setattr("shared.telemetry.logs.configure", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["service", "--port=1", "--metrics_port=2"])
    threshold = gc.get_threshold()
    yield start
    gc.unfreeze()
    gc.set_threshold(*threshold)


def _blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_products_keep_to_the_calling_thread(started: Started) -> None:
    assert np.ones((2, 2)) @ np.ones(2) == pytest.approx(2)
    with threadpool_limits(2, "blas"):
        assert _blas_threads() == {2}
        assert started(_blas_threads) == {1}


def test_the_garbage_collector_leaves_alone_what_stays(started: Started) -> None:
    assert gc.get_freeze_count() == 0
    frozen, threshold = started(lambda: (gc.get_freeze_count(), gc.get_threshold()))
    # Modules' functions and classes alone are tens of thousands.
    assert frozen > 10_000
    assert threshold[0] > 700
