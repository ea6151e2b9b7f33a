from pathlib import Path

import pytest

from services.trainer.alone import alone
from services.trainer.errors import JobError


def test_a_folder_is_one_run_s_until_that_ends(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with (
        alone(folder, "--out new"),
        pytest.raises(JobError, match="--out new is another run's"),
        alone(folder, "--out new"),
    ):
        pytest.fail("two have it")
    with alone(folder, "--out new"):
        assert folder.is_dir()
