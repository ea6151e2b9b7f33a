"""What is exported is declared, what is declared is used, and the page says the same."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram

from shared.telemetry import metrics
from shared.telemetry.reference import metrics_page
from shared.telemetry.registry import Declaration

ROOT = Path(__file__).parents[4]
OWN = ROOT / "shared" / "telemetry" / "registry.py"
KINDS = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}
DECLARED = {name for name, value in vars(metrics).items() if isinstance(value, Counter | Gauge | Histogram)}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("services", "shared", "deploy"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "stubs" not in path.parts:
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def made(tree: ast.Module) -> Iterator[str]:
    """Names of prometheus-client's metric classes that `tree` calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in KINDS and _imports_prometheus(tree):
                yield name


def _imports_prometheus(tree: ast.Module) -> bool:
    return any(
        (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prometheus_client"))
        or (isinstance(node, ast.Import) and any(a.name.startswith("prometheus_client") for a in node.names))
        for node in ast.walk(tree)
    )


def used(tree: ast.Module) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "metrics"
    }


def test_no_metric_is_made_outside_the_registry() -> None:
    strays = {path: list(made(tree)) for path, tree in modules() if ROOT / path != OWN and list(made(tree))}
    assert not strays


def test_what_would_stray_is_seen() -> None:
    assert list(made(ast.parse("from prometheus_client import Counter\nX = Counter('x', 'x')"))) == ["Counter"]
    assert list(made(ast.parse("import prometheus_client as p\nX = p.Gauge('x', 'x')"))) == ["Gauge"]
    assert not list(made(ast.parse("from collections import Counter\nX = Counter()")))


def test_every_metric_used_is_declared_and_every_declared_one_used() -> None:
    everywhere = set().union(*(used(tree) for _, tree in modules()))
    assert everywhere >= DECLARED, f"declared and used nowhere: {sorted(DECLARED - everywhere)}"
    capitals = {name for name in everywhere if name.isupper()}
    assert capitals <= DECLARED, f"used and not declared: {sorted(capitals - DECLARED)}"


@pytest.mark.parametrize("one", metrics.REGISTRY.declarations, ids=lambda one: one.name)
def test_a_declaration_is_whole(one: Declaration) -> None:
    assert one.name.startswith(("aisle_", "grpc_"))
    assert one.meaning.endswith(".")
    assert one.unit
    assert one.name.endswith("_total") == (one.kind == "counter")
    assert one.name.endswith("_seconds") == (one.unit == "seconds")
    assert list(one.buckets) == sorted(set(one.buckets))


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_page(), "run `make docs`"
