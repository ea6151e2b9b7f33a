"""A real Prometheus that reads a running mesh and evaluates the project's rules."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from deploy.local import scrape
from deploy.local.spec import MeshSpec, free_ports

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"
_UNPACKED = ROOT / "build" / "peers" / "prometheus" / "usr" / "bin"


def program(name: str) -> str | None:
    """`prometheus` or `promtool`; `None` where this machine has none."""
    return shutil.which(name, path=str(_UNPACKED)) or shutil.which(name)


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        return list(self._get("query", query=expression)["result"])

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> Any:
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]


@contextmanager
def reading(spec: MeshSpec, folder: Path) -> Iterator[Prometheus]:
    """Reads every service of `spec` each second, with the project's rules and labels."""
    found = program("prometheus")
    assert found is not None
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES / name) for name in config["rule_files"]]
    (job,) = config["scrape_configs"]
    job["file_sd_configs"] = [{"files": [str(scrape.path(spec.folder))]}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{next(free_ports(1))}"
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [
                found,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={url.removeprefix('http://')}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        _wait(url, running, folder / "log")
        yield Prometheus(url)
    finally:
        running.terminate()
        running.wait(20)


def _wait(url: str, running: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 30
    while not _ready(url):
        assert running.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < until, log.read_text()[-2000:]
        time.sleep(0.1)


def _ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError):
        return False
