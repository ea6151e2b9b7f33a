"""One look at a time."""

from pathlib import Path

import pytest

from shared.bundles import Bundle, BundleKind, Channel, ChannelName
from shared.errors import UnavailableError
from shared.inference import BiEncoder
from shared.serving.follow import Follower
from shared.serving.switch import Switch
from tests.support.registry import put
from tests.support.tiny_bundle import make_bundle
from tests.unit.shared.serving.test_switch import encoder


@pytest.fixture
def bundles(tmp_path: Path) -> list[Bundle]:
    return [make_bundle(tmp_path / str(n), BundleKind.BI_ENCODER, max_query_tokens=n) for n in (16, 8, 4)]


async def test_a_version_that_fails_is_tried_less_and_less_and_another_at_once(
    bundles: list[Bundle], tmp_path: Path
) -> None:
    first, bad, good = bundles
    location = str(tmp_path / "registry")
    put(location, Channel.LIVE, first, bad)
    tried: list[int] = []

    async def open_(bundle: Bundle) -> BiEncoder:
        if bundle.version == bad.version:
            tried.append(looks)
            raise UnavailableError("device", "the device is away")
        return await encoder(bundle)

    switch = Switch(await encoder(first))
    follower = Follower(ChannelName(location, Channel.LIVE), switch, open_, kind=None, cache=tmp_path)
    for looks in range(1, 50):  # noqa: B007 - read by `open_`
        assert not await follower.look()
    assert tried == [1, 3, 7, 15, 31]
    put(location, Channel.LIVE, good)
    assert await follower.look()
    assert switch.now.bundle.version == good.version
    assert not await follower.look()
    await switch.close()


async def test_a_bundle_of_another_kind_is_not_loaded(bundles: list[Bundle], tmp_path: Path) -> None:
    location = str(tmp_path / "registry")
    put(location, Channel.LIVE, make_bundle(tmp_path / "cross", BundleKind.CROSS_ENCODER))
    switch = Switch(await encoder(bundles[0]))
    channel = ChannelName(location, Channel.LIVE)
    assert not await Follower(channel, switch, encoder, kind=BundleKind.BI_ENCODER, cache=tmp_path).look()
    assert switch.now.bundle.version == bundles[0].version
    await switch.close()
