"""A registry of bundles: jobs put the next model there, services find the one that is live.

    <registry>/                  a directory, or a URL that fsspec opens (s3://bucket/models/encoder)
      bundles/<version>/         a bundle, whole; never changed
      reports/<version>.json     how it was evaluated, where that was given with it
      channels/candidate.json    what may be live next
      channels/live.json         what services load

A registry holds one line of models, each meant to take the place of the one before: encoders in one, re-rankers in
another. A channel is a single small file, written whole, that holds all its changes: the last one says what it points
to, so the pointer and its history cannot disagree. Services name a bundle by it: `registry:PATH#live`.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.bundles.errors import BundleError
from shared.bundles.files import MANIFEST_NAME, leads_out
from shared.bundles.manifest import Manifest
from shared.bundles.storage import Files, open_files

PREFIX = "registry:"
"""What the name of a bundle begins with that a registry's channel points to."""

DEFAULT_CACHE = Path("~/.cache/aisle/bundles")
"""Where bundles are fetched to from registries behind URLs."""

_Document = TypeVar("_Document", bound=BaseModel)

Version = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class Channel(StrEnum):
    """What a registry points to."""

    CANDIDATE = "candidate"
    LIVE = "live"


class Action(StrEnum):
    """Why a channel points where it does."""

    PUBLISH = "publish"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Change(_Closed):
    """One move of a channel."""

    version: Version
    action: Action
    before: Version | None = None
    """What a rollback from here goes back to; None: nothing."""
    at: datetime
    by: str
    why: str = ""
    evaluation: dict[str, float] = Field(default_factory=dict)
    """The numbers that allowed it."""
    override: str = ""
    """The reason that was given for going on in spite of `objections`."""
    objections: tuple[str, ...] = ()


class History(_Closed):
    """The whole of a channel's file."""

    format: Literal[1] = 1
    changes: tuple[Change, ...] = ()
    """Oldest first."""

    @property
    def version(self) -> str | None:
        """What the channel points to; None: nothing yet."""
        return self.changes[-1].version if self.changes else None

    @property
    def before(self) -> str | None:
        """What a rollback goes back to; None: nothing."""
        return self.changes[-1].before if self.changes else None

    def rolled_back(self, version: str) -> Change | None:
        """The rollback that ended `version`'s time, where it has not been promoted again since."""
        ended = None
        for earlier, later in pairwise(self.changes):
            if later.version == version:
                ended = None
            elif earlier.version == version and later.action is Action.ROLLBACK:
                ended = later
        return ended

    def came_from(self, version: str) -> str | None:
        """What `version` had replaced when it was promoted last."""
        arrivals = [c for c in self.changes if c.version == version and c.action is not Action.ROLLBACK]
        return arrivals[-1].before if arrivals else None


@dataclass(frozen=True, slots=True)
class ChannelName:
    """A bundle's name that leads through a registry."""

    location: str
    channel: Channel

    @classmethod
    def parse(cls, name: str) -> "ChannelName | None":
        """`registry:PATH#live`; `None` for a name of another kind. Raises `BundleError` for a channel that is none."""
        if not name.startswith(PREFIX):
            return None
        location, _, channel = name.removeprefix(PREFIX).partition("#")
        if not location.strip():
            raise BundleError(f"{name!r} names no registry: write {PREFIX}PATH#live")
        try:
            return cls(location, Channel(channel or Channel.LIVE))
        except ValueError:
            known = " or ".join(f"#{each}" for each in Channel)
            raise BundleError(f"{name!r} names no channel: end it with {known}") from None

    def version(self) -> str:
        """What the channel points to now. Raises `BundleError` where that is nothing."""
        version = Registry(self.location).channel(self.channel).version
        if version is None:
            raise BundleError(
                f"{self.channel} of registry {self.location} points to no bundle yet: `python -m services.trainer "
                f"publish` and `promote` put one there"
            )
        return version

    def resolve(self, cache: Path = DEFAULT_CACHE) -> Path:
        """The local directory of the bundle that the channel points to now, not verified yet."""
        return Registry(self.location).local(self.version(), cache)


class Registry:
    """The registry at one location. Every method raises `BundleError` for what is not as it should be there."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._files: Files = open_files(location)

    def channel(self, channel: Channel) -> History:
        """Where it points to and how it came there; no changes where it was never moved."""
        return self._parsed(History, _channel_path(channel)) or History()

    def manifest(self, version: str) -> Manifest:
        """`bundle.json` of a bundle that is here."""
        found = self._parsed(Manifest, f"{_bundle_path(version)}/{MANIFEST_NAME}")
        if found is None:
            raise BundleError(f"registry {self.location} holds no bundle {version}: publish it again")
        if found.version != version:
            raise BundleError(
                f"registry {self.location}: {_bundle_path(version)} is bundle {found.version}: publish both again"
            )
        if any(map(leads_out, found.files)):
            raise BundleError(f"registry {self.location}: {_bundle_path(version)} names files outside the bundle")
        return found

    def holds(self, version: str) -> bool:
        """Whether the bundle is here, whole."""
        return self._files.read(f"{_bundle_path(version)}/{MANIFEST_NAME}") is not None

    def local(self, version: str, cache: Path = DEFAULT_CACHE) -> Path:
        """A local directory with the bundle, not verified; fetched into `cache` where the registry is far away."""
        return self._files.local(_bundle_path(version), _names(self.manifest(version)), cache)

    def add(self, folder: Path, manifest: Manifest) -> None:
        """Copies a bundle, which the caller has verified, from `folder`. Nothing is done where it is here already."""
        if not self.holds(manifest.version):
            self._files.add(folder, _names(manifest), _bundle_path(manifest.version))

    def report(self, version: str) -> str | None:
        """The `evaluation.json` that was kept with the bundle."""
        return self._files.read(_report_path(version))

    def keep_report(self, version: str, text: str) -> None:
        """Keeps an `evaluation.json` with the bundle, in place of one kept before."""
        self._files.write(_report_path(version), text)

    @contextlib.contextmanager
    def changing(self, channel: Channel) -> Iterator[History]:
        """The channel, for a `move` that is decided on inside; other jobs of this machine wait meanwhile."""
        with self._files.alone():
            yield self.channel(channel)

    def move(self, channel: Channel, change: Change) -> None:
        """Points the channel elsewhere; inside `changing`."""
        history = self.channel(channel)
        moved = history.model_copy(update={"changes": (*history.changes, change)})
        self._files.write(_channel_path(channel), moved.model_dump_json(indent=2) + "\n")

    def _parsed(self, kind: type[_Document], path: str) -> _Document | None:
        text = self._files.read(path)
        if text is None:
            return None
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            at = ".".join(map(str, first["loc"])) or "the document"
            raise BundleError(f"registry {self.location}: {path}: {at}: {first['msg']}") from error


def _names(manifest: Manifest) -> list[str]:
    """The files of a bundle; the manifest last, so that a bundle whose manifest is there is whole."""
    return [*manifest.files, MANIFEST_NAME]


def _channel_path(channel: Channel) -> str:
    return f"channels/{channel}.json"


def _bundle_path(version: str) -> str:
    return f"bundles/{version}"


def _report_path(version: str) -> str:
    return f"reports/{version}.json"
