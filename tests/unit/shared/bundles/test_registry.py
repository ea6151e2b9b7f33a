"""A registry in a directory and behind a URL: what is tested on one is tested on the other."""

import shutil
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.bundles import Bundle, BundleError, BundleKind, Channel, ChannelName, Registry, load_bundle
from shared.bundles.__main__ import main
from tests.support.registry import change, put
from tests.support.tiny_bundle import make_bundle


@pytest.fixture(params=["directory", "file URL", "URL"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "URL":
        pytest.importorskip("fsspec")
        return f"memory://{uuid.uuid4().hex}/encoder"
    folder = tmp_path / "a registry"
    return folder.as_uri() if request.param == "file URL" else str(folder)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "first", BundleKind.BI_ENCODER)


@pytest.fixture
def second(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "second", BundleKind.BI_ENCODER, max_item_tokens=24)


def test_a_channel_names_the_bundle_it_points_to(location: str, bundle: Bundle, second: Bundle, tmp_path: Path) -> None:
    put(location, Channel.LIVE, bundle)
    put(location, Channel.CANDIDATE, second)
    cache = tmp_path / "cache"
    assert load_bundle(f"registry:{location}", cache=cache).version == bundle.version
    assert load_bundle(f"registry:{location}#live", cache=cache).version == bundle.version
    assert load_bundle(f"registry:{location}#candidate", cache=cache).version == second.version
    put(location, Channel.LIVE, second)
    assert load_bundle(f"registry:{location}#live", cache=cache).version == second.version


def test_what_is_far_away_is_fetched_once(bundle: Bundle, tmp_path: Path) -> None:
    location = f"memory://{uuid.uuid4().hex}"
    registry = put(location, Channel.LIVE, bundle)
    folder = registry.local(bundle.version, tmp_path / "cache")
    assert folder == tmp_path / "cache" / bundle.version
    changed = (folder / "tokenizer.json").stat().st_mtime_ns
    assert registry.local(bundle.version, tmp_path / "cache") == folder
    assert (folder / "tokenizer.json").stat().st_mtime_ns == changed
    assert [each.name for each in (tmp_path / "cache").iterdir()] == [bundle.version]


def test_adding_twice_adds_once(location: str, bundle: Bundle) -> None:
    registry = Registry(location)
    assert not registry.holds(bundle.version)
    registry.add(bundle.path, bundle.manifest)
    shutil.rmtree(bundle.path)
    registry.add(bundle.path, bundle.manifest)
    assert registry.holds(bundle.version)


def test_a_copy_that_was_cut_off_is_no_bundle(location: str, bundle: Bundle) -> None:
    registry = Registry(location)
    whole = bundle.manifest.model_copy(update={"files": {**bundle.manifest.files, "missing": None}})
    with pytest.raises(BundleError, match="cannot write"):
        registry.add(bundle.path, whole)
    assert not registry.holds(bundle.version)
    registry.add(bundle.path, bundle.manifest)
    assert registry.holds(bundle.version)


def test_reports_are_kept_with_their_bundle(location: str, bundle: Bundle) -> None:
    registry = Registry(location)
    assert registry.report(bundle.version) is None
    registry.keep_report(bundle.version, "{}")
    registry.keep_report(bundle.version, '{"a": 1}')
    assert registry.report(bundle.version) == '{"a": 1}'


def test_a_reader_never_sees_half_a_channel(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        reader = Registry(str(tmp_path))
        while not done.is_set():
            seen.append(len(reader.channel(Channel.LIVE).changes))

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(60):
        registry.move(Channel.LIVE, change(f"{number:016x}"))
    done.set()
    thread.join()
    assert seen == sorted(seen)
    assert registry.channel(Channel.LIVE).version == f"{59:016x}"


def test_no_change_is_lost_among_several_jobs(tmp_path: Path) -> None:
    def move(number: int) -> None:
        registry = Registry(str(tmp_path))
        with registry.changing(Channel.LIVE) as history:
            registry.move(Channel.LIVE, change(f"{number:016x}", history.version))

    with ThreadPoolExecutor(8) as jobs:
        list(jobs.map(move, range(24)))
    changes = Registry(str(tmp_path)).channel(Channel.LIVE).changes
    assert len({each.version for each in changes}) == 24
    assert [each.before for each in changes[1:]] == [each.version for each in changes[:-1]]


def test_a_change_that_cannot_be_written_leaves_the_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(str(tmp_path))
    registry.move(Channel.LIVE, change("a" * 16))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shared.bundles.storage.os.fsync", full)
    with pytest.raises(BundleError, match=r"live\.json: No space left"):
        registry.move(Channel.LIVE, change("b" * 16))
    assert registry.channel(Channel.LIVE).version == "a" * 16
    assert [each.name for each in (tmp_path / "channels").iterdir()] == ["live.json"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("registry:", "names no registry"),
        ("registry:#live", "names no registry"),
        ("registry:/somewhere#next", "end it with #candidate or #live"),
        ("registry:/nowhere#live", "publish"),
        ("registry:nosuch://bucket#live", "cannot be opened"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_to_do(name: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        load_bundle(name)


def test_what_is_no_registry_name_is_none() -> None:
    assert ChannelName.parse("build/models/minilm") is None
    assert ChannelName.parse("registry:a/b") == ChannelName("a/b", Channel.LIVE)


def test_a_channel_that_was_edited_is_named(location: str) -> None:
    registry = Registry(location)
    registry._files.write("channels/live.json", '{"format": 1, "changes": [{"version": "x"}]}')
    with pytest.raises(BundleError, match=r"channels/live\.json: changes\.0\.version"):
        registry.channel(Channel.LIVE)


def test_a_bundle_under_another_name_is_refused(location: str, bundle: Bundle) -> None:
    registry = Registry(location)
    registry._files.write(f"bundles/{'a' * 16}/bundle.json", bundle.manifest.model_dump_json())
    with pytest.raises(BundleError, match=bundle.version):
        registry.local("a" * 16)


def test_nothing_is_fetched_outside_the_cache(bundle: Bundle, tmp_path: Path) -> None:
    entry = next(iter(bundle.manifest.files.values()))
    outside = bundle.manifest.model_copy(update={"files": {"../../escaped": entry}})
    registry = Registry(f"memory://{uuid.uuid4().hex}")
    registry._files.write(f"bundles/{bundle.version}/bundle.json", outside.model_dump_json())
    with pytest.raises(BundleError, match="outside the bundle"):
        registry.local(bundle.version, tmp_path / "a" / "cache")
    assert not (tmp_path / "a").exists()


def test_a_damaged_bundle_is_not_loaded(location: str, bundle: Bundle, tmp_path: Path) -> None:
    registry = put(location, Channel.LIVE, bundle)
    registry._files.write(f"bundles/{bundle.version}/tokenizer.json", "{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        load_bundle(f"registry:{location}#live", cache=tmp_path / "cache")


def test_the_command_line_verifies_what_a_channel_points_to(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(str(tmp_path / "registry"), Channel.LIVE, bundle)
    assert main(["verify", f"registry:{tmp_path / 'registry'}#live"]) == 0
    assert bundle.version in capsys.readouterr().out
    assert main(["verify", f"registry:{tmp_path / 'registry'}#candidate"]) == 1
    assert "points to no bundle yet" in capsys.readouterr().err
