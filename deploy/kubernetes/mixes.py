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
    "canary",
)
"""Every component, in the order in which they are listed in a kustomization."""

EXCLUSIVE = ({"keda", "hpa"},)
"""Two autoscalers of one target would undo each other's work."""

UNFIT = {"dev": {"keda", "hpa", "milvus-operator", "postgres-operator", "gpu"}}
"""Components that make no sense for an overlay: one process has the embedded stores' files."""


@dataclass(frozen=True, slots=True)
class Mix:
    """`root` (`base`, or the name of an overlay) with `added` components; `parts` holds what the overlay has as well."""

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
    return [Mix("base", added, frozenset(added)) for added in _subsets(COMPONENTS, most=2)] + [
        Mix(overlay, added, frozenset(added) | has)
        for overlay in overlays()
        for has in [included(HERE / "overlays" / overlay)]
        for added in _subsets([c for c in COMPONENTS if c not in has | UNFIT.get(overlay, set())], besides=has)
    ]


def telling() -> list[Mix]:
    """Some that have everything between them: each overlay alone and with all that it takes, and the base alone, with
    each component, and with all."""
    every = mixes()
    most = {root: max(len(mix.parts) for mix in every if mix.root == root) for root in overlays()}
    full = [Mix("base", added, frozenset(added)) for added in _subsets(COMPONENTS) if len(added) == len(COMPONENTS) - 1]
    return full + [
        mix for mix in every if (len(mix.added) < 2 if mix.root == "base" else len(mix.parts) == most[mix.root] or not mix.added)
    ]


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


def _subsets(
    names: list[str] | tuple[str, ...], *, most: int | None = None, besides: frozenset[str] = frozenset()
) -> Iterator[tuple[str, ...]]:
    for size in range((len(names) if most is None else most) + 1):
        for chosen in combinations(names, size):
            if not any(len(both & (besides | set(chosen))) > 1 for both in EXCLUSIVE):
                yield chosen
