"""What each image holds, without a container engine: the Dockerfile's own pip lines, run in a clean environment on what
the Dockerfile copies, and the service started from it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from signal import SIGTERM

import pytest

from deploy.local import client
from deploy.local.spec import DEFAULT_BUNDLE, free_ports
from shared.bundles import BundleKind
from shared.rpc.health import LIVE
from tests.integration.deploy.docker import dockerfile
from tests.integration.deploy.docker.dockerfile import ROOT
from tests.support.tiny_bundle import make_bundle

pytestmark = [pytest.mark.images, pytest.mark.timeout(900)]

START_S = 120
HEAVY = {"torch", "transformers", "onnxruntime", "tokenizers", "pymilvus", "milvus_lite", "sqlalchemy", "pyarrow"}
HOLDS = {
    "install-gateway": set[str](),
    "install-encoder-cpu": {"onnxruntime", "tokenizers"},
    "install-encoder-gpu": {"torch", "transformers", "tokenizers"},
    "install-retrieval": {"pymilvus"},
    "install-retrieval-lite": {"pymilvus", "milvus_lite", "pyarrow"},
    "install-events": {"sqlalchemy"},
    "install-train": {"torch", "transformers", "onnxruntime", "tokenizers", "sqlalchemy", "pyarrow"},
}
"""The heavy packages of each set, in full. Optuna keeps its trials through SQLAlchemy."""
MEBIBYTES = {"install-gateway": 150, "install-encoder-gpu": 1_536, "install-train": 3_072}
"""The most that a set may take, with torch's build for CPUs."""
RUNS = {
    "install-gateway": ["gateway"],
    "install-encoder-cpu": ["query-encoder", "item-encoder", "reranker"],
    "install-encoder-gpu": ["query-encoder-cuda", "item-encoder-cuda", "reranker-cuda"],
    "install-retrieval": ["vector-retrieval"],
    "install-retrieval-lite": ["vector-retrieval-lite"],
    "install-events": ["user-events"],
    "install-train": ["trainer"],
}
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def test_every_image_is_looked_at() -> None:
    assert set(dockerfile.targets()) == {name for names in RUNS.values() for name in names}
    assert all(dockerfile.installed_by(name).name == stage for stage, names in RUNS.items() for name in names)


@pytest.fixture(scope="module")
def installing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Path]]]:
    """The environment of each stage that is asked for. pip keeps one core busy, so two are made at a time."""
    calls = (getattr(item, "callspec", None) for item in request.session.items)
    stages = dict.fromkeys(call.params["installed"] for call in calls if call and "installed" in call.params)
    with ThreadPoolExecutor(2) as pool:
        yield {stage: pool.submit(install, stage, tmp_path_factory.mktemp(stage)) for stage in stages}


@pytest.fixture(
    scope="module",
    params=[pytest.param(it, marks=[pytest.mark.torch_images] if "torch" in HOLDS[it] else []) for it in RUNS],
)
def installed(request: pytest.FixtureRequest, installing: dict[str, Future[Path]]) -> Iterator[tuple[str, Path]]:
    """A stage's name, and the environment that it makes."""
    venv = installing[request.param].result()
    if not venv.is_dir():
        pytest.skip(f"torch {version('torch')} is no build for CPUs that pip finds here, and another is gigabytes")
    yield request.param, venv
    shutil.rmtree(venv)


def install(stage: str, folder: Path) -> Path:
    """What the Dockerfile's `stage` makes, in `folder`; no such place where torch for CPUs is not to be had."""
    venv = folder / "venv"
    first = [cpu_torch()] if "torch" in HOLDS[stage] else []
    if None in first:
        return venv
    for source in dockerfile.context(stage):
        place = folder / "src" / source
        place.parent.mkdir(exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / source, place)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    for arguments in [*first, *dockerfile.installs(dockerfile.stages()[stage])]:
        subprocess.run([*PIP, "--python", str(venv), "install", *arguments], cwd=folder / "src", check=True)
    shutil.rmtree(folder / "src")
    return venv


@cache
def cpu_torch() -> list[str] | None:
    """What to install before the Dockerfile's own lines, whose torch brings CUDA: the build of this environment.
    None where that has CUDA too, or pip finds it no more."""
    wanted = f"torch=={version('torch')}"
    if not wanted.endswith("+cpu"):
        return None
    looked = subprocess.run([*PIP, "install", "--dry-run", "--ignore-installed", "--no-deps", wanted], check=False)
    return ["-c", "versions.txt", wanted] if looked.returncode == 0 else None


def test_it_holds_what_its_services_need_and_no_more(installed: tuple[str, Path]) -> None:
    stage, venv = installed
    (packages,) = venv.glob("lib/python3*/site-packages")
    assert {name for name in HEAVY if (packages / name).exists()} == HOLDS[stage]
    size = sum(path.stat().st_size for path in venv.rglob("*") if path.is_file() and not path.is_symlink())
    sys.stdout.write(f"{stage}: {size / 1024**2:.0f} MiB\n")
    assert size < MEBIBYTES.get(stage, 1024) * 1024**2


def test_what_it_is_for_runs(installed: tuple[str, Path], tmp_path: Path) -> None:
    stage, venv = installed
    for target in RUNS[stage]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AISLE_", "PYTHON"))},
            **dockerfile.environment(target),
            "PATH": f"{venv}/bin:/usr/bin:/bin",
            "HOME": str(tmp_path),
        }
        run, *rest = dockerfile.command(target)
        command = [str(venv / "bin" / run), *rest]
        if target == "trainer":
            train(command[:-1], environment, tmp_path)
        else:
            serve(target, command, environment, tmp_path)


def serve(target: str, command: list[str], environment: dict[str, str], folder: Path) -> None:
    """Starts the service where nothing of the repository lies, and waits until it answers."""
    prefix = f"AISLE_{command[-1].removeprefix('services.').upper()}_"
    port, metrics_port = free_ports(2)
    told = {f"{prefix}PORT": port, f"{prefix}METRICS_PORT": metrics_port, **settings(target, prefix, folder)}
    environment = {**environment, **{name: str(value) for name, value in told.items()}}
    child = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + START_S
        while client.health(f"127.0.0.1:{port}", LIVE) != "SERVING":
            assert child.poll() is None, child.stderr.read() if child.stderr else ""
            assert time.monotonic() < until, f"{target} does not answer after {START_S} s"
            time.sleep(0.1)
    finally:
        child.send_signal(SIGTERM)
        child.communicate()


def train(command: list[str], environment: dict[str, str], folder: Path) -> None:
    """From a catalogue to a bundle's worth of weights, in one step of training."""
    for job in (
        "sample --out shop --items 200 --queries 60",
        "prepare --catalogue shop/catalogue.jsonl --judgements shop/judgements.csv --relevant 3 --out data",
        "finetune-encoder --data data --out model --max-steps 1 --batch 8 --validation-queries 5 --validation-items 5",
    ):
        subprocess.run([*command, *job.split()], cwd=folder, env=environment, check=True)
    assert (folder / "model" / "training.json").is_file()


def settings(target: str, prefix: str, folder: Path) -> dict[str, object]:
    """What a service needs to be told to start here: a bundle, a store, and that there is no GPU."""
    name = target.removesuffix("-cuda")
    match name:
        case "query-encoder" | "item-encoder" | "reranker" if (DEFAULT_BUNDLE / "bundle.json").is_file():
            backend = {f"{prefix}BACKEND": "torch-cpu"} if target != name else {}
            return {f"{prefix}BUNDLE": DEFAULT_BUNDLE, **backend}
        case "query-encoder" | "item-encoder" | "reranker":
            kind = BundleKind.CROSS_ENCODER if name == "reranker" else BundleKind.BI_ENCODER
            return {f"{prefix}BUNDLE": make_bundle(folder / target, kind).path, f"{prefix}BACKEND": "dummy"}
        case "vector-retrieval":
            # Nobody answers there: a service starts, lives, and says that it does not serve.
            return {f"{prefix}URI": "http://127.0.0.1:9"}
        case "vector-retrieval-lite" | "user-events":
            return {f"{prefix}URI": folder / "store.db"}
    return {}
