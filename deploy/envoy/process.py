"""The Envoy of a mesh as a process: where its program is, how it is started, and whether it is ready."""

import shutil
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from deploy.envoy import config
from deploy.local.errors import LocalError
from deploy.local.spec import ROOT, MeshSpec

METRICS_PATH = "/stats/prometheus"
"""On the admin port."""
_INSTALLED = ROOT / "build" / "peers" / "envoy" / "bin"
_READY_S = 1.0


def program() -> Path | None:
    """Envoy, as `make envoy` installs it or as the machine has it; `None` without one."""
    found = shutil.which("envoy", path=str(_INSTALLED)) or shutil.which("envoy")
    return None if found is None else Path(found)


def command(spec: MeshSpec) -> list[str]:
    """What starts it, its configuration written anew. Raises `LocalError` where there is none."""
    found = program()
    if found is None:
        raise LocalError("there is no Envoy on this machine: `make envoy` installs one")
    # Several meshes fit one machine; as many threads as services share two cores with it.
    return [str(found), "-c", str(config.write(spec)), "--disable-hot-restart", "--concurrency", "2", "-l", "warning"]


def health(admin_port: int) -> str:
    """`SERVING`, `NOT_SERVING`, or `no answer`."""
    try:
        with urlopen(f"http://127.0.0.1:{admin_port}/ready", timeout=_READY_S):
            return "SERVING"
    except HTTPError:
        return "NOT_SERVING"
    except (URLError, OSError):
        return "no answer"
