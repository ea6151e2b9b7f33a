"""The README's Python runs as it is written, against the mesh."""

import re
from typing import Any

from deploy.local.spec import ROOT
from tests.mesh.conftest import Shop

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PORTS = {"localhost:50051": "gateway", "localhost:50056": "user_events"}


def test_its_examples_run_one_after_another(shop: Shop, capsys: Any) -> None:
    text = (ROOT / "README.md").read_text()
    for port, name in _PORTS.items():
        text = text.replace(port, shop.mesh.address(name))
    known: dict[str, Any] = {}
    for block in _BLOCK.findall(text):
        exec(compile(block, "README.md", "exec"), known)
    assert "Bunk Bed" in capsys.readouterr().out
    assert known["found"].results
    assert known["home"].results
    assert known["found"].results[0].item.id not in {result.item.id for result in known["home"].results}
