"""What each image holds, without a container engine: the Dockerfile's own pip lines, run in a clean environment on what
the Dockerfile copies, and the service started from it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
    "install-retrieval": {"pymilvus"},
    "install-retrieval-lite": {"pymilvus", "milvus_lite", "pyarrow"},
    "install-events": {"sqlalchemy"},
}
"""The heavy packages of each set, in full. Sets with torch are gigabytes and not installed here: install-encoder-gpu,
install-train."""
MEBIBYTES = {"install-gateway": 150}
"""The most that a set may take."""
RUNS = {
    "install-gateway": ["gateway"],
    "install-encoder-cpu": ["query-encoder", "item-encoder", "reranker"],
    "install-retrieval": ["vector-retrieval"],
    "install-retrieval-lite": ["vector-retrieval-lite"],
    "install-events": ["user-events"],
}


def test_every_image_without_torch_is_looked_at() -> None:
    looked_at = {name for names in RUNS.values() for name in names}
    others = set(dockerfile.targets()) - looked_at
    assert others == {name for name in others if name.endswith("-cuda") or name == "trainer"}
    assert all(dockerfile.installed_by(name).name == stage for stage, names in RUNS.items() for name in names)


@pytest.fixture(scope="module")
def installing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Path]]]:
    """The environment of each stage. pip keeps one core busy, so two are made at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {stage: pool.submit(install, stage, tmp_path_factory.mktemp(stage)) for stage in RUNS}


@pytest.fixture(scope="module", params=RUNS)
def installed(request: pytest.FixtureRequest, installing: dict[str, Future[Path]]) -> Iterator[tuple[str, Path]]:
    """A stage's name, and the environment that it makes."""
    venv = installing[request.param].result()
    yield request.param, venv
    shutil.rmtree(venv)


def install(stage: str, folder: Path) -> Path:
    """What the Dockerfile's `stage` makes, in `folder`."""
    for source in dockerfile.context(stage):
        place = folder / "src" / source
        place.parent.mkdir(exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / source, place)
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    for arguments in dockerfile.installs(dockerfile.stages()[stage]):
        pip = [sys.executable, "-m", "pip", "--python", str(venv), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *arguments], cwd=folder / "src", check=True)
    shutil.rmtree(folder / "src")
    return venv


def test_it_holds_what_its_services_need_and_no_more(installed: tuple[str, Path]) -> None:
    stage, venv = installed
    (packages,) = venv.glob("lib/python3*/site-packages")
    assert {name for name in HEAVY if (packages / name).exists()} == HOLDS[stage]
    size = sum(path.stat().st_size for path in venv.rglob("*") if path.is_file() and not path.is_symlink())
    sys.stdout.write(f"{stage}: {size / 1024**2:.0f} MiB\n")
    assert size < MEBIBYTES.get(stage, 1024) * 1024**2


def test_its_services_start(installed: tuple[str, Path], tmp_path: Path) -> None:
    stage, venv = installed
    for target in RUNS[stage]:
        _, _, module = dockerfile.command(target)
        port, metrics_port = free_ports(2)
        prefix = f"AISLE_{module.removeprefix('services.').upper()}_"
        told = {f"{prefix}PORT": port, f"{prefix}METRICS_PORT": metrics_port, **settings(target, prefix, tmp_path)}
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AISLE_", "PYTHON"))},
            **dockerfile.environment(target),
            **{name: str(value) for name, value in told.items()},
            "PATH": f"{venv}/bin:/usr/bin:/bin",
            "HOME": str(tmp_path),
        }
        # Where nothing of the repository lies.
        child = subprocess.Popen(
            [venv / "bin" / "python", "-m", module], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )
        try:
            until = time.monotonic() + START_S
            while client.health(f"127.0.0.1:{port}", LIVE) != "SERVING":
                assert child.poll() is None, child.stderr.read() if child.stderr else ""
                assert time.monotonic() < until, f"{target} does not answer after {START_S} s"
                time.sleep(0.1)
        finally:
            child.send_signal(SIGTERM)
            child.communicate()


def settings(target: str, prefix: str, folder: Path) -> dict[str, object]:
    """What a service needs to be told to start here: a bundle, a store."""
    match target:
        case "query-encoder" | "item-encoder" | "reranker" if (DEFAULT_BUNDLE / "bundle.json").is_file():
            return {f"{prefix}BUNDLE": DEFAULT_BUNDLE}
        case "query-encoder" | "item-encoder" | "reranker":
            kind = BundleKind.CROSS_ENCODER if target == "reranker" else BundleKind.BI_ENCODER
            return {f"{prefix}BUNDLE": make_bundle(folder / target, kind).path, f"{prefix}BACKEND": "dummy"}
        case "vector-retrieval":
            # Nobody answers there: a service starts, lives, and says that it does not serve.
            return {f"{prefix}URI": "http://127.0.0.1:9"}
        case "vector-retrieval-lite" | "user-events":
            return {f"{prefix}URI": folder / "store.db"}
    return {}
