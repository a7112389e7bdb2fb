"""Logging never waits for who reads the log."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from listener.adapters import log
from listener.adapters.log import Lines, configure_logs, drain_logs, dropped_lines
from tests.pipe import Pipe

_ROOM = 4


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    """Have the log written to a pipe."""
    before = logging.getLogger().handlers[:], logging.getLogger().level
    made = Pipe()
    monkeypatch.setattr(log, "_STANDARD_ERROR", made.writing)
    monkeypatch.setattr(log, "_MOST_LINES", _ROOM)
    configure_logs("INFO")
    yield made
    made.read()
    drain_logs()
    logging.getLogger().handlers[:], logging.getLogger().level = before
    structlog.reset_defaults()
    # Its thread goes on reading its queue: what it writes to must not become another file.
    os.close(made.reading)


def lines(written: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.splitlines()]


def say(number: int) -> None:
    structlog.stdlib.get_logger().info("at work", number=number)


def test_line_is_written_at_once(pipe: Pipe) -> None:
    say(1)
    drain_logs()
    assert [line["number"] for line in lines(pipe.read())] == [1]
    assert dropped_lines() == 0


def test_error_that_a_library_no_longer_handles_is_logged_with_its_places(pipe: Pipe) -> None:
    with pytest.raises(ValueError, match="content") as raised:
        int("a row's content")
    ended = (raised.type, raised.value, raised.tb)
    logging.getLogger("asyncio").error("Task exception was never retrieved", exc_info=ended)
    drain_logs()
    written = pipe.read()
    ((kind, place),) = [line["exception"] for line in lines(written)]
    assert kind == "ValueError"
    assert place.startswith(f"  {__file__}:")
    assert "content" not in written


def test_full_pipe_drops_lines_and_reports_them_once_it_flows(pipe: Pipe) -> None:
    pipe.fill()
    # Beside those that wait, one is being written.
    for number in range(_ROOM + 10):
        say(number)
    assert dropped_lines() in {9, 10}
    dropped = dropped_lines()
    written = ""
    while "log lines were dropped" not in written:
        written += pipe.read()
        drain_logs()
    *kept, _ = found = lines(written)
    assert [line["number"] for line in kept if "number" in line] == list(
        range(_ROOM + 10 - dropped)
    )
    report = next(line for line in found if line["event"] == "log lines were dropped")
    assert (report["lines"], report["total"], report["level"]) == (dropped, dropped, "warning")
    say(99)
    drain_logs()
    assert [line["number"] for line in lines(pipe.read())] == [99]


def test_end_waits_only_briefly_for_a_reader_that_has_stalled(pipe: Pipe) -> None:
    pipe.fill()
    say(1)
    logging.shutdown()
    # It came back with the line still unwritten.
    written = ""
    while not written.endswith("\n"):
        written += pipe.read()
    assert [line["number"] for line in lines(written)] == [1]


def test_full_device_loses_lines_and_nothing_else() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    handler = Lines(full)
    handler.handle(logging.makeLogRecord({"msg": "at work"}))
    handler.flush()
    assert handler.dropped == 1
    os.close(full)


def test_line_that_cannot_be_formatted_is_harmless() -> None:
    handler = Lines(os.open(os.devnull, os.O_WRONLY))
    handler.handle(logging.makeLogRecord({"msg": "%d rows", "args": ("no number",)}))
    assert handler.dropped == 1


def test_descriptor_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    filled = pipe.fill()
    os.set_blocking(pipe.writing, False)
    say(1)
    while filled:
        filled -= len(os.read(pipe.reading, filled))
    drain_logs()
    assert [line["number"] for line in lines(pipe.read())] == [1]
    assert dropped_lines() == 0
