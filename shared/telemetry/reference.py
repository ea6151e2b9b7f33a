"""The page of all metrics, from their declarations."""

from collections.abc import Iterator
from itertools import groupby

from shared.telemetry.metrics import REGISTRY
from shared.telemetry.registry import Declaration

_HEAD = """# Metrics

Made by `make docs` from `shared/telemetry/metrics.py`; do not edit. Each service serves the ones that concern it at
`http://<host>:<metrics port>/metrics`, beside those of prometheus-client about its process (`process_*`, `python_*`).

A histogram `x` gives the series `x_bucket`, `x_sum` and `x_count`. Where tracing is on, the buckets of
`grpc_server_handling_seconds`, `grpc_client_handling_seconds` and `aisle_gateway_stage_seconds` carry the trace id of a
sampled request as an exemplar, for scrapers that ask for OpenMetrics.
"""

_AREAS = {
    "grpc": "gRPC, of every service",
    "aisle_health": "Health, of every service",
    "aisle_gateway": "Gateway",
    "aisle_engine": "Engine: query encoder, item encoder, re-ranker",
    "aisle_retrieval": "Vector retrieval",
    "aisle_events": "User events",
}


def metrics_page() -> str:
    """Markdown: a table an area, a row a metric, in the order of their declarations."""
    return "\n".join([_HEAD, *_tables()])


def _tables() -> Iterator[str]:
    for area, declared in groupby(REGISTRY.declarations, lambda one: _AREAS[_prefix(one.name)]):
        yield f"## {area}\n"
        yield "| name | type | labels | unit | meaning |"
        yield "|---|---|---|---|---|"
        yield from map(_row, declared)
        yield ""


def _prefix(name: str) -> str:
    return next(prefix for prefix in _AREAS if name.startswith(f"{prefix}_"))


def _row(one: Declaration) -> str:
    labels = ", ".join(f"`{label}`" for label in one.labels)
    buckets = f" Buckets: {', '.join(f'{bound:g}' for bound in one.buckets)}." if one.buckets else ""
    return f"| `{one.name}` | {one.kind} | {labels} | {one.unit} | {one.meaning}{buckets} |"
