"""Training on several devices, as several processes on one CPU: they learn together, and one of them writes."""

import os
import re
import subprocess
import sys
from pathlib import Path

from deploy.local.spec import ROOT, free_ports
from services.trainer.base import open_base
from services.trainer.record import read_record
from tests.support.judged_shop import make_prepared

BATCH = 8


def test_two_processes_train_one_model_together(tiny_base: Path, tmp_path: Path) -> None:
    prepared = make_prepared(tmp_path)
    (port,) = free_ports(1)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)),
            *("-m", "services.trainer", "finetune-encoder", "--data", prepared.path, "--base", tiny_base),
            *("--out", tmp_path / "model", "--towers", "2", "--batch", str(BATCH), "--epochs", "1"),
            *("--evaluations", "2", "--validation-items", "5"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'shared' / 'stubs'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    rows, steps = (float(found) for found in re.findall(r"'train_(?:samples|steps)_per_second': '([\d.]+)'", told))
    assert round(rows / steps) == 2 * BATCH
    record = read_record(tmp_path / "model")
    assert record is not None
    # 80 rows, sixteen a step. Each validation is one of the first process's, and there is one before training.
    assert record.steps == 5
    assert told.count("'eval_valid_ndcg@10'") >= 3
    assert open_base(str(tmp_path / "model")).query is not None
    assert not (tmp_path / "model" / "checkpoints").exists()
