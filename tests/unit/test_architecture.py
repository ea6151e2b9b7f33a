"""The walls between the parts, as the design draws them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = sorted(p.name for p in (ROOT / "services").iterdir() if (p / "__main__.py").is_file())
SERVERS = [name for name in SERVICES if name != "trainer"]

WIRE = {"grpc", "google", "aisle", "grpc_health", "grpc_status", "grpc_reflection"}
"""What a domain module does not know."""
WIRE_ROOMS = {"__main__.py", "clients.py", "wire.py", "milvus.py"}
"""With `servicer*.py`, `clients_*.py` and `wire_*.py`, the rooms of a service that do know it; Milvus's own client
speaks gRPC too."""

HEAVY = {
    "torch", "transformers", "onnxruntime", "tokenizers", "numpy", "scipy", "pymilvus", "milvus_lite", "pyarrow",
    "pandas", "sqlalchemy", "alembic", "aiosqlite", "asyncpg",
}  # fmt: skip
ALLOWED = {
    "gateway": {"numpy"},
    "query_encoder": {"numpy", "onnxruntime", "tokenizers"},
    "item_encoder": {"numpy", "onnxruntime", "tokenizers"},
    "reranker": {"numpy", "onnxruntime", "tokenizers"},
    # Not numpy: what is learned is learned in a process of its own.
    "user_events": {"sqlalchemy", "alembic", "aiosqlite", "asyncpg"},
    "vector_retrieval": {"numpy", "pymilvus", "pandas", "pyarrow", "milvus_lite"},
}


def modules(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*.py")) if "stubs" not in p.parts]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_there_are_services_to_look_at() -> None:
    assert set(SERVERS) == set(ALLOWED)


@pytest.mark.parametrize("path", modules(ROOT / "shared"), ids=lambda p: str(p.relative_to(ROOT)))
def test_shared_never_imports_services(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0] == "services"]


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_imports_another(service: str) -> None:
    foreign = {
        (path.name, name)
        for path in modules(ROOT / "services" / service)
        for name in imports(path)
        if name.startswith("services.") and name.split(".")[1] != service
    }
    assert not foreign


@pytest.mark.parametrize("package", ["inference", "bundles", "catalogue"])
def test_shared_domain_packages_know_no_wire(package: str) -> None:
    known = {
        (path.name, name)
        for path in modules(ROOT / "shared" / package)
        for name in imports(path)
        if name.split(".")[0] in WIRE or name.startswith("shared.rpc")
    }
    assert not known


@pytest.mark.parametrize("service", SERVERS)
def test_only_the_outer_rooms_of_a_service_know_the_wire(service: str) -> None:
    known = {
        (path.name, name)
        for path in modules(ROOT / "services" / service)
        if path.name not in WIRE_ROOMS and not path.name.startswith(("servicer", "clients_", "wire_"))
        for name in imports(path)
        if name.split(".")[0] in WIRE
    }
    assert not known


@pytest.mark.parametrize("service", SERVERS)
def test_a_service_loads_only_the_heavy_packages_of_its_extra(service: str) -> None:
    code = f"import sys, services.{service}.__main__; print(*sorted({HEAVY!r} & set(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=50
    )
    assert set(loaded.stdout.split()) <= ALLOWED[service]
