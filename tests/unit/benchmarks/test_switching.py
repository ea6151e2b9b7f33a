import os
import subprocess
import sys

import pytest

from deploy.local.spec import ROOT
from tests.benchmarks.switching import SWITCHED, ratio

COUNTED = """
import os, signal
from prometheus_client import REGISTRY, Counter
from shared.telemetry import tracing

series = Counter("acts", "acts", ["kind"])
kept = series.labels("kept")
tracer = object()
tracing.install(tracer)

def act():
    kept.inc()
    series.labels("looked up").inc()
    return tracing.active() is tracer

def switch(number):
    os.kill(os.getpid(), number)

traced = [act()]
for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR2):
    switch(number)
    traced.append(act())
print(traced, kept._value.get(), REGISTRY.get_sample_value("acts_total", {"kind": "looked up"}))
"""


def test_telemetry_is_off_between_its_two_signals_and_what_was_counted_before_stays() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNTED], cwd=ROOT, env={**os.environ, **SWITCHED}, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[True, False, False, True, True] 3.0 3.0"


def test_a_ratio_is_of_pairs_and_knows_how_sure_it_is() -> None:
    told, error = ratio(([90.0, 200.0, 33.0], [100.0, 200.0, 30.0]))
    assert told == pytest.approx(1.0)
    assert error == pytest.approx(1.2533 * 0.1 / 3**0.5, rel=1e-3)
