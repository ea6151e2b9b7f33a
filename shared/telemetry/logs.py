"""Logs by structlog: one JSON object a line for machines, readable text on a terminal.

Every line made while a call is served carries its request id, and its trace id where
tracing is on. User ids and item text never stand above debug.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from shared.rpc.context import request_id
from shared.telemetry import tracing

EventDict = MutableMapping[str, Any]


def _add_call(_logger: object, _method: str, event: EventDict) -> EventDict:
    if current := request_id():
        event.setdefault("request_id", current)
    if trace := tracing.trace_id():
        event.setdefault("trace_id", trace)
    return event


def configure(service: str, level: str, fmt: str) -> None:
    """Sends the process's logs, those of libraries included, to stderr. `fmt`: `auto`, `json` or `console`."""
    console = fmt == "console" or (fmt == "auto" and sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_call,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.types.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    numeric = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    # Libraries speak up only when something is wrong: their info lines would drown the services' own.
    logging.basicConfig(level=max(numeric, logging.WARNING), handlers=[handler], force=True)
