"""From a bundle's name, as an operator writes it in a setting, to a directory on this machine.

This is the one place where names are understood. A hub id or an `s3://`-like URL is resolved by downloading
into a local directory first and returning that; nothing else in the code needs to change.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from shared.bundles.errors import BundleError


def resolve(name: str) -> Path:
    """The directory that `name` (a path or a `file://` URL) means; it need not hold a bundle yet."""
    if not name.strip():
        raise BundleError("the bundle's name is empty: give a directory, or a file:// URL")
    parts = urlsplit(name)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise BundleError(f"{name!r} names another host: mount it and give its local path")
        return Path(unquote(parts.path))
    if "://" in name:
        raise BundleError(
            f"bundles are not fetched over {parts.scheme}:// yet: copy the bundle to a local directory "
            "(an init container, a volume) and give that path"
        )
    return Path(name).expanduser()
