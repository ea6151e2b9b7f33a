import os
import sys
from pathlib import Path

import pytest

from shared.inference.cpu import available_cpus, inference_threads, tune_interpreter


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def v2(root: Path, limits: dict[str, str], group: str = "/pod/container") -> Path:
    files = {f"sys/fs/cgroup{level}/cpu.max": limit for level, limit in limits.items()}
    return write(root, {"proc/self/cgroup": f"0::{group}\n", **files})


def test_without_a_limit_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) == 8
    assert available_cpus(v2(tmp_path, {"/pod/container": "max 100000"})) == 8


def test_the_cgroup_v2_limit_counts(tmp_path: Path) -> None:
    assert available_cpus(v2(tmp_path, {"/pod/container": "250000 100000"})) == 2.5
    assert inference_threads(root=tmp_path) == 2


def test_the_tightest_level_of_cgroup_v2_counts(tmp_path: Path) -> None:
    assert available_cpus(v2(tmp_path, {"/pod": "100000 100000", "/pod/container": "400000 100000"})) == 1


def test_a_container_that_sees_its_group_as_the_root(tmp_path: Path) -> None:
    assert available_cpus(v2(tmp_path, {"": "300000 100000"}, group="/")) == 3


def test_the_cgroup_v1_quota_counts(tmp_path: Path) -> None:
    write(
        tmp_path, {f"sys/fs/cgroup/cpu/cpu.cfs_{k}_us": v for k, v in (("quota", "150000\n"), ("period", "100000\n"))}
    )
    assert available_cpus(tmp_path) == 1.5


def test_an_unlimited_cgroup_v1_quota(tmp_path: Path) -> None:
    write(tmp_path, {f"sys/fs/cgroup/cpu/cpu.cfs_{k}_us": v for k, v in (("quota", "-1\n"), ("period", "100000\n"))})
    assert available_cpus(tmp_path) == 8


def test_a_limit_above_the_affinity_does_not_raise_it(tmp_path: Path) -> None:
    assert available_cpus(v2(tmp_path, {"/pod/container": "1600000 100000"})) == 8


def test_there_is_always_one_thread(tmp_path: Path) -> None:
    assert inference_threads(root=v2(tmp_path, {"/pod/container": "30000 100000"})) == 1


def test_an_operator_may_decide() -> None:
    assert inference_threads(5) == 5
    with pytest.raises(ValueError, match="at least 1"):
        inference_threads(0)


def test_the_batch_thread_gets_the_gil_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    intervals: list[float] = []
    monkeypatch.setattr(sys, "setswitchinterval", intervals.append)
    tune_interpreter()
    assert intervals == [0.0005]
