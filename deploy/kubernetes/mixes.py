"""Which overlays and components can be applied together. Every one of these mixes is built and checked.

Of an overlay, with every subset of the components that it leaves open; of the base, with each component and each pair.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import yaml

HERE = Path(__file__).parent

COMPONENTS = (
    "canary",
    "default-model",
    "network-policies",
    "monitoring",
    "keda",
    "hpa",
    "milvus-operator",
    "postgres-operator",
    "gpu",
    "object-store",
    "mtls",
    "istio",
    "canary-mtls",
)
"""Every component, in the order in which a kustomization has to list them: one that makes pods before those that change
pods."""

EXCLUSIVE = ({"keda", "hpa"}, {"mtls", "istio"})
"""Two autoscalers of one target would undo each other's work; a proxy cannot read what the services encrypt."""

NEEDED = {"canary-mtls": {"canary", "mtls"}}
"""Components that are about what others bring: they come with those."""

UNFIT = {"dev": {"keda", "hpa", "milvus-operator", "postgres-operator", "gpu"}}
"""Components that make no sense for an overlay: one process has the embedded stores' files."""


@dataclass(frozen=True, slots=True)
class Mix:
    """`root` (`base`, or the name of an overlay) with `added` components. `parts`: those, and what the overlay has."""

    root: str
    added: tuple[str, ...]
    parts: frozenset[str]

    @property
    def name(self) -> str:
        """For people, and for folders: `production-cpu+mtls+istio`."""
        return "+".join((self.root, *self.added))

    @property
    def folder(self) -> Path:
        """Where the kustomization of `root` is."""
        return HERE / "base" if self.root == "base" else HERE / "overlays" / self.root


def mixes() -> list[Mix]:
    """All of them."""
    return [*_mixes("base", most=2), *(mix for overlay in overlays() for mix in _mixes(overlay))]


def telling() -> list[Mix]:
    """Some that have everything between them: the base and each overlay alone, and with all that they take; the base
    with each component."""
    found = list(_mixes("base", most=1))
    for root in ("base", *overlays()):
        every = list(_mixes(root))
        most = max(len(mix.added) for mix in every)
        found += [mix for mix in every if len(mix.added) == most or (root != "base" and not mix.added)]
    return found


def overlays() -> list[str]:
    """Every overlay there is."""
    return sorted(path.parent.name for path in HERE.glob("overlays/*/kustomization.yaml"))


def included(folder: Path) -> frozenset[str]:
    """The components that the kustomization in `folder` has, or one that it is made of."""
    told = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found = {Path(name).name for name in told.get("components", ())} & set(COMPONENTS)
    for resource in told.get("resources", ()):
        if (folder / resource / "kustomization.yaml").is_file():
            found |= included(folder / resource)
    return frozenset(found)


def _mixes(root: str, *, most: int | None = None) -> Iterator[Mix]:
    """`root` with every subset of what it takes, of `most` members and what those need."""
    has = frozenset() if root == "base" else included(HERE / "overlays" / root)
    free = [name for name in COMPONENTS if name not in has | UNFIT.get(root, set())]
    found: dict[tuple[str, ...], None] = {}
    for size in range((len(free) if most is None else most) + 1):
        for chosen in combinations(free, size):
            needed = {other for name in chosen for other in NEEDED.get(name, ())} - has
            if needed <= set(free):
                found[tuple(name for name in free if name in needed | set(chosen))] = None
    for added in found:
        parts = has | set(added)
        if not any(len(both & parts) > 1 for both in EXCLUSIVE):
            yield Mix(root, added, parts)
