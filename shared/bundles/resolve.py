"""From a bundle's name, as an operator writes it in a setting, to a directory on this machine.

This is the one place where names are understood. What a registry behind a URL points to is fetched into a local
directory first; a hub id or another URL could be resolved likewise, and nothing else in the code would need to change.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from shared.bundles.errors import BundleError
from shared.bundles.registry import DEFAULT_CACHE, ChannelName


def resolve(name: str, cache: Path = DEFAULT_CACHE) -> Path:
    """The directory that `name` (a path, a `file://` URL, `registry:PATH#live`) means; it need not hold a bundle yet.

    `cache` is where a bundle is fetched to from a registry behind a URL.
    """
    if not name.strip():
        raise BundleError("the bundle's name is empty: give a directory, a file:// URL, or registry:PATH#live")
    if channel := ChannelName.parse(name):
        return channel.resolve(cache)
    parts = urlsplit(name)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise BundleError(f"{name!r} names another host: mount it and give its local path")
        return Path(unquote(parts.path))
    if "://" in name:
        raise BundleError(
            f"bundles are not fetched over {parts.scheme}:// yet: copy the bundle to a local directory "
            "(an init container, a volume) and give that path, or publish it in a registry there"
        )
    return Path(name).expanduser()
