"""A bundle without weights, and a batcher around the dummy backend."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from shared.bundles import Bundle, BundleKind, load_bundle
from shared.inference import Batcher
from shared.inference.tokens import Tokens
from tests.support.tiny_bundle import make_bundle

MODEL = Path(__file__).parents[4] / "build" / "models" / "minilm"


def words(size: int, first: int = 1) -> Tokens:
    """A row of `size` tokens; rows of different `first` are different rows."""
    return Tokens([first] * size)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bi", BundleKind.BI_ENCODER)


@pytest.fixture
def cross_bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "cross", BundleKind.CROSS_ENCODER)


Start = Callable[..., Awaitable[Batcher[Any, Any]]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start(backend, …)` gives a running batcher, closed after the test."""
    started: list[Batcher[Any, Any]] = []

    async def start_one(*arguments: Any, **options: Any) -> Batcher[Any, Any]:
        batcher: Batcher[Any, Any] = Batcher(*arguments, **options)
        started.append(batcher)
        await batcher.start()
        return batcher

    yield start_one
    for batcher in started:
        await batcher.close(timeout_s=1)


@pytest.fixture(scope="session")
def minilm() -> Bundle:
    """The real default bundle; tests that use it are marked `model`."""
    if not MODEL.is_dir():
        pytest.skip(f"{MODEL} is missing: run `make models`")
    return load_bundle(MODEL)
