"""What the process writes to stderr, as another process reads it: configuring logs is for a whole process."""

import ast
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]

PROGRAM = """
import asyncio, logging, sys
import grpc, structlog
from shared.rpc import context
from shared.telemetry import logs, tracing
from shared.telemetry.otel import OpenTelemetry

logs.configure("gateway", sys.argv[1], sys.argv[2])
tracing.install(OpenTelemetry(OpenTelemetry.provider("gateway"), 1.0))
log = structlog.get_logger()

async def serve():
    context.adopt_request_id("r-1")
    carried = (("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"),)
    call = tracing.active().served("aisle.test.v1.Test/Do", carried, "r-1")
    log.info("two\\nlines", why="so")
    log.debug("typed", text="bunk bed")
    try:
        try:
            raise KeyError("bunk bed")
        except KeyError:
            raise ValueError("no bunk bed")
    except ValueError as error:
        log.error("bug", exc_info=error)
    logging.getLogger("some.library").warning("a library's: %s", "x")
    logging.getLogger("some.library").info("chatter")
    await asyncio.create_task(later())

async def later():
    log.warning("in a task of the call's")

asyncio.run(serve())
log.info("outside")
"""


def written(level: str = "info", fmt: str = "auto", stderr: int = subprocess.PIPE) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, level, fmt], stderr=stderr, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr or ""


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """Each line by itself is JSON, or this fails."""
    return [json.loads(line) for line in written().splitlines()]


def test_an_event_is_one_line_of_json(lines: list[dict[str, Any]]) -> None:
    events = ["two\nlines", "bug", "a library's: x", "in a task of the call's", "outside"]
    assert [line["event"] for line in lines] == events
    assert {line["service"] for line in lines} == {"gateway"}
    assert all(line["timestamp"].endswith("Z") and line["level"] for line in lines)


def test_every_line_of_a_call_has_its_ids_those_of_libraries_and_tasks_too(lines: list[dict[str, Any]]) -> None:
    of_the_call, outside = lines[:-1], lines[-1]
    assert {(line["request_id"], line["trace_id"]) for line in of_the_call} == {("r-1", "a" * 32)}
    assert not {"request_id", "trace_id"} & set(outside)


def test_a_bug_is_told_with_its_road_and_not_with_what_it_failed_on(lines: list[dict[str, Any]]) -> None:
    told = next(line["exception"] for line in lines if line["event"] == "bug")
    assert [line for line in told.splitlines() if not line.startswith((" ", "Traceback"))] == [
        "KeyError",
        "",
        "ValueError",
    ]
    assert 'File "<string>"' in told


def test_what_was_typed_is_written_at_debug_only() -> None:
    assert "bunk bed" in written("debug")
    assert "bunk bed" not in written("info")


def test_a_terminal_gets_text_and_json_where_it_is_asked_for() -> None:
    def on_a_terminal(fmt: str) -> str:
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            try:
                written(fmt=fmt, stderr=theirs)
            finally:
                os.close(theirs)
            return _all(terminal).decode()

    def _all(terminal: Any) -> bytes:
        read = b""
        try:
            while chunk := terminal.read(65536):
                read += chunk
        except OSError:
            # How Linux says that nobody has the other end open any more.
            pass
        return read

    text = on_a_terminal("auto")
    assert "in a task of the call's" in text
    assert "r-1" in text
    assert '{"' not in text
    assert '"request_id": "r-1"' in on_a_terminal("json")
    assert '{"' not in written(fmt="console")


# --- what is written, by looking at the code ---

LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
NEVER = {"user", "user_id", "user_ids", "session_id", "shopper"}
AT_DEBUG = {"query", "queries", "text", "texts", "title", "item", "items", "payload"}


def told(tree: ast.AST) -> Iterator[tuple[str, set[str], int]]:
    """(level, names of what is told, line) of each call of a logger."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in {"_log", "log"}
        ):
            yield node.func.attr, {word.arg for word in node.keywords if word.arg}, node.lineno


def test_no_log_line_tells_a_user_nor_item_text_above_debug() -> None:
    wrong, seen = [], 0
    for folder in ("services", "shared"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for level, names, line in told(ast.parse(path.read_text())):
                seen += 1
                if names & NEVER or (level != "debug" and names & AT_DEBUG):
                    wrong.append(f"{path.relative_to(ROOT)}:{line} {sorted(names)}")
    assert not wrong
    assert seen > 20
