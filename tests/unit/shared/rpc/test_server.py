"""How a service's process is set up before it serves. The rest of a server is tested on real processes."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from shared.rpc import server
from shared.settings import ServiceSettings


def _blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_products_keep_to_the_calling_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.ones((2, 2)) @ np.ones(2) == pytest.approx(2)
    found: list[set[int]] = []

    async def serve(settings: ServiceSettings, build: object) -> None:
        found.append(_blas_threads())

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr("shared.telemetry.logs.configure", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["service", "--port=1", "--metrics_port=2"])
    with threadpool_limits(2, "blas"):
        assert _blas_threads() == {2}
        server.main("service", ServiceSettings, lambda settings, stack: None)  # type: ignore[arg-type,return-value]

    assert found == [{1}]
