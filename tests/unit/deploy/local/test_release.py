"""Which services a promotion, or a rollback, waits for."""

from pathlib import Path

import pytest

from deploy.local.release import follows
from deploy.local.spec import ROOT

HERE = str(ROOT / "build" / "registry")


@pytest.mark.parametrize(
    ("bundle", "location", "expected"),
    [
        (f"registry:{HERE}#live", HERE, True),
        (f"registry:{HERE}", HERE, True),
        (f"registry:{HERE}/#live", HERE, True),
        # As services read it, wherever the command is given.
        ("registry:build/registry#live", HERE, True),
        (f"registry:{HERE}#candidate", HERE, False),
        (f"registry:{HERE}-of-rerankers#live", HERE, False),
        ("registry:s3://bucket/encoder#live", "s3://bucket/encoder", True),
        ("registry:s3://bucket/reranker#live", "s3://bucket/encoder", False),
        ("build/models/minilm", HERE, False),
        ("", HERE, False),
    ],
)
def test_only_what_follows_the_live_channel_of_that_registry_switches(
    bundle: str, location: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert follows(bundle, location) is expected
