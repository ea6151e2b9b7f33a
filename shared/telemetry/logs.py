"""Logs by structlog: one JSON object a line for machines, readable text on a terminal.

Every line made while a call is served carries its request id, and its trace id where tracing is on. User ids and item
text never stand above debug, nor do the messages of unexpected exceptions, which may quote them.
"""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

from shared.errors import AisleError
from shared.rpc.context import request_id
from shared.telemetry import tracing

EventDict = MutableMapping[str, Any]


def _add_call(_logger: object, _method: str, event: EventDict) -> EventDict:
    if current := request_id():
        event.setdefault("request_id", current)
    if trace := tracing.trace_id():
        event.setdefault("trace_id", trace)
    return event


def _traceback(error: BaseException, *, with_messages: bool) -> str:
    """As Python writes it; an exception's message may quote what it failed on, so it is told only where asked for."""
    if with_messages:
        return "".join(traceback.format_exception(error)).rstrip()
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    first = f"{_traceback(before, with_messages=False)}\n\n" if before is not None else ""
    # Those of the domain hold no text by their own rule.
    message = f": {error}" if isinstance(error, AisleError) else ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{first}Traceback (most recent call last):\n{frames}{type(error).__qualname__}{message}"


def _tell_exceptions(*, with_messages: bool) -> structlog.types.Processor:
    def tell(_logger: object, _method: str, event: EventDict) -> EventDict:
        given = event.pop("exc_info", None)
        if isinstance(given, tuple):
            given = given[1]
        elif given is True:
            given = sys.exc_info()[1]
        if isinstance(given, BaseException):
            event["exception"] = _traceback(given, with_messages=with_messages)
        return event

    return tell


def configure(service: str, level: str, fmt: str) -> None:
    """Sends the process's logs, those of libraries included, to stderr. `fmt`: `auto`, `json` or `console`."""
    console = fmt == "console" or (fmt == "auto" and sys.stderr.isatty())
    numeric = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_call,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.types.Processor] = [
        _tell_exceptions(with_messages=numeric <= logging.DEBUG),
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(),
    ]
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
