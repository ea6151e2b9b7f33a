"""Calls keep the model they began with; what was replaced is closed after its last one."""

import asyncio
from pathlib import Path

import pytest

from shared.bundles import Bundle, BundleKind
from shared.inference import Batcher, BiEncoder, QueryCache
from shared.inference.backend import Output
from shared.inference.backends.dummy import DummyBackend
from shared.serving.switch import Switch
from tests.support.tiny_bundle import make_bundle


async def encoder(bundle: Bundle) -> BiEncoder:
    made: BiEncoder = BiEncoder(
        bundle, Batcher(DummyBackend(8, output=Output.SENTENCE), name=bundle.version), cache=QueryCache(10_000)
    )
    await made.batcher.start()
    return made


@pytest.fixture
def bundles(tmp_path: Path) -> list[Bundle]:
    return [make_bundle(tmp_path / str(n), BundleKind.BI_ENCODER, max_query_tokens=n) for n in (16, 4)]


async def test_a_call_keeps_its_model_and_the_old_one_is_closed_after_it(bundles: list[Bundle]) -> None:
    old, new = [await encoder(bundle) for bundle in bundles]
    switch = Switch(old)
    with switch.use() as mine:
        replacing = asyncio.create_task(switch.replace(new))
        await asyncio.sleep(0.01)
        assert switch.now is new
        with switch.use() as another:
            assert another is new
        assert not replacing.done()
        assert not (await mine.encode_queries(["red lamp"])).failures
    await replacing
    assert not old.batcher.health.ok
    assert old.cache is not None
    assert old.cache.bytes == 0
    assert await switch.health() is None
    await switch.close()
    assert await switch.health() == "draining" or not new.batcher.health.ok


async def test_a_call_that_fails_lets_go_of_its_model(bundles: list[Bundle]) -> None:
    old, new = [await encoder(bundle) for bundle in bundles]
    switch = Switch(old)
    with pytest.raises(ValueError, match="mine"), switch.use():
        raise ValueError("mine")
    await asyncio.wait_for(switch.replace(new), 5)
    assert not old.batcher.health.ok
    await switch.close()


async def test_an_end_in_the_middle_of_a_switch_closes_both(bundles: list[Bundle]) -> None:
    old, new = [await encoder(bundle) for bundle in bundles]
    switch = Switch(old)
    with switch.use():
        replacing = asyncio.create_task(switch.replace(new))
        await asyncio.sleep(0.01)
        replacing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await replacing
    await switch.close()
    assert not old.batcher.health.ok
    assert not new.batcher.health.ok
