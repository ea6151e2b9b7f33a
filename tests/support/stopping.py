"""Jobs that are stopped half-way."""

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest


def stopped_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, after: int, rows: int) -> list[Any]:
    """The inputs of `owner.name`, its second argument, as they are computed, `rows` a part. Once, the job is stopped:
    after so many parts."""
    computed: list[Any] = []
    calls, real = count(), getattr(owner, name)

    def compute(first: Any, inputs: Sequence[Any]) -> Any:
        if next(calls) == after:
            raise KeyboardInterrupt
        computed.extend(inputs)
        return real(first, inputs)

    monkeypatch.setattr("services.trainer.parts.ROWS", rows)
    monkeypatch.setattr(owner, name, compute)
    return computed
