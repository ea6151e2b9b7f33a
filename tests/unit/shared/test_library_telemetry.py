"""Libraries that report to their makers do not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.spec import DEFAULT_BUNDLE, ROOT
from tests.support.default_model import need_default_model

QUIET = {"CI", "GITHUB_ACTIONS", "TF_BUILD", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS"}
"""Variables by which ONNX Runtime reports nothing anyway."""


def written(home: Path, code: str, **environment: str) -> list[str]:
    """What a process that runs a model leaves in its user's folders of ONNX Runtime."""
    code = f"{code}; onnxruntime.InferenceSession({str(DEFAULT_BUNDLE / 'onnx' / 'model_int8.onnx')!r})"
    inherited = {name: value for name, value in os.environ.items() if name not in QUIET}
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONPATH": f"{ROOT}:{ROOT / 'shared' / 'stubs'}"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**inherited, **own, **environment}, check=False)
    assert done.returncode == 0
    return [path.name for path in home.rglob("*onnxruntime*")]


@pytest.mark.model
@pytest.mark.parametrize("module", ["shared.inference.backends.onnx", "services.trainer.convert"])
def test_nobody_hears_what_is_run(tmp_path: Path, module: str) -> None:
    need_default_model()
    assert written(tmp_path, f"import {module}, onnxruntime") == []


@pytest.mark.model
def test_who_wants_to_report_can(tmp_path: Path) -> None:
    need_default_model()
    assert written(tmp_path, "import shared, onnxruntime", ORT_DISABLE_TELEMETRY="0") != []
