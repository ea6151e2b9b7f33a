"""The files of a registry, in a local directory or behind a URL: small texts written whole, folders that never change.

Behind a URL anything that fsspec opens will do whose writes of one object are atomic, as an object store's are.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from shared.bundles.errors import BundleError


class Files(Protocol):
    """Paths are relative, with `/`. Every method raises `BundleError` where the place cannot be read or written."""

    def read(self, path: str) -> str | None:
        """The text at `path`; `None` where there is none."""

    def write(self, path: str, text: str) -> None:
        """Replaces the text at `path`: a reader sees the old one or the new one."""

    def add(self, source: Path, names: Iterable[str], path: str) -> None:
        """Copies the files `names` of `source` into the folder `path`, the last of them last."""

    def local(self, path: str, names: Iterable[str], cache: Path) -> Path:
        """A local folder with the files `names` of the folder `path`; fetched into `cache` where it is far away."""

    def alone(self) -> AbstractContextManager[None]:
        """Keeps other writers of this machine out meanwhile, as far as the place knows locks: an object store does
        not."""


def open_files(location: str) -> Files:
    """The files at `location`: a directory or a URL."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return LocalFiles(Path(unquote(parts.path)))
    if "://" in location:
        return RemoteFiles(location)
    return LocalFiles(Path(location).expanduser())


class LocalFiles:
    """A directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> str | None:
        """See `Files`."""
        with _explained(f"read {self._root / path}", OSError):
            try:
                return (self._root / path).read_text(encoding="utf-8")
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, path: str, text: str) -> None:
        """See `Files`."""
        target = self._root / path
        with _explained(f"write {target}", OSError):
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, draft = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    # Else a machine that loses power may keep the new name and lose what it names.
                    os.fsync(file.fileno())
                # Services may run as another user than the job.
                Path(draft).chmod(0o644)
                Path(draft).replace(target)
            finally:
                Path(draft).unlink(missing_ok=True)

    def add(self, source: Path, names: Iterable[str], path: str) -> None:
        """See `Files`. The folder appears whole."""
        target = self._root / path
        with _explained(f"write {target}", OSError):
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as made:
                staged = Path(made) / "staged"
                for name in names:
                    (staged / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source / name, staged / name)
                staged.rename(target)

    def local(self, path: str, names: Iterable[str], cache: Path) -> Path:
        """See `Files`."""
        return self._root / path

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """See `Files`."""
        with _explained(f"write {self._root}", OSError):
            self._root.mkdir(parents=True, exist_ok=True)
            lock = (self._root / ".lock").open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class RemoteFiles:
    """Whatever fsspec opens."""

    def __init__(self, url: str) -> None:
        # Imported where used: a local registry needs none of it, and an image may lack it.
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise BundleError(f"{url} needs a package that is not installed ({error}): pip install it") from None
        except ValueError as error:
            raise BundleError(f"{url} cannot be opened: {error}") from None
        self._url = url

    def read(self, path: str) -> str | None:
        """See `Files`."""
        with _explained(f"read {self._url}/{path}"):
            try:
                content: bytes = self._files.cat_file(f"{self._root}/{path}")
            except FileNotFoundError:
                return None
            return content.decode("utf-8")

    def write(self, path: str, text: str) -> None:
        """See `Files`."""
        with _explained(f"write {self._url}/{path}"):
            self._files.pipe_file(f"{self._root}/{path}", text.encode("utf-8"))

    def add(self, source: Path, names: Iterable[str], path: str) -> None:
        """See `Files`."""
        with _explained(f"write {self._url}/{path}"):
            for name in names:
                self._files.put_file(str(source / name), f"{self._root}/{path}/{name}")

    def local(self, path: str, names: Iterable[str], cache: Path) -> Path:
        """See `Files`. Fetched once."""
        with _explained(f"fetch {self._url}/{path} into {cache}"):
            target = cache.expanduser() / path.rpartition("/")[2]
            if target.is_dir():
                return target
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as made:
                staged = Path(made) / "staged"
                for name in names:
                    (staged / name).parent.mkdir(parents=True, exist_ok=True)
                    self._files.get_file(f"{self._root}/{path}/{name}", str(staged / name))
                # Another process may have fetched the same meanwhile.
                with contextlib.suppress(OSError):
                    staged.rename(target)
        return target

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """See `Files`."""
        yield


@contextlib.contextmanager
def _explained(what: str, kind: Any = Exception) -> Iterator[None]:
    """Errors of kind `kind` as a `BundleError`: stores raise what they like."""
    try:
        yield
    except BundleError:
        raise
    except kind as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise BundleError(f"cannot {what}: {told}; is it there, and may this user?") from error
