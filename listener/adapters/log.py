"""Logs: one line per event, readable on a terminal, JSON otherwise."""

from __future__ import annotations

import logging
import os
import select
import sys
import traceback
from datetime import timedelta
from queue import Full, Queue
from threading import Thread

import structlog

_log = structlog.stdlib.get_logger()

_STANDARD_ERROR = 2
# Lines that wait while their reader is stalled; a line rarely exceeds a kilobyte.
_MOST_LINES = 2_000
_LAST_LINES = timedelta(seconds=0.3)


def configure_logs(level: str) -> None:
    """Send events of at least `level` to standard error, including those of libraries."""
    terminal = os.isatty(_STANDARD_ERROR)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_values,
    ]
    # A convention of terminals, not a setting of ours.
    colours = not os.environ.get("NO_COLOR")  # noqa: TID251
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=colours)
        if terminal
        else structlog.processors.JSONRenderer()
    )
    handler = Lines(_STANDARD_ERROR)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    _quiet_libraries()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _quiet_libraries() -> None:
    for chatty in ("httpx", "httpcore", "asyncio", "apscheduler"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It warns about connections whose errors we receive and log ourselves.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    # Invalid requests from outside are not events of ours.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def write_line(text: str) -> None:
    """Write a line among those of the log; like them, it does not wait for its reader."""
    for each in _handlers():
        each.put(text)


def dropped_lines() -> int:
    """Return how many lines were dropped because standard error did not accept them."""
    return sum(each.dropped for each in _handlers())


def drain_logs() -> None:
    """Wait until everything logged is written, but only briefly if the reader is stalled."""
    for each in _handlers():
        each.flush()


def _handlers() -> list[Lines]:
    return [each for each in logging.getLogger().handlers if isinstance(each, Lines)]


class Lines(logging.Handler):
    """Writes lines to a descriptor in a thread, so that logging never waits for their reader.

    If too many lines wait, further ones are dropped, counted, and reported once lines flow again.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waiting: Queue[bytes] = Queue(_MOST_LINES)
        self._refused = self._unwritten = self._reported = 0
        # Nothing joins this thread: it may be blocked in a write.
        Thread(target=self._write_all, name="log", daemon=True).start()

    @property
    def dropped(self) -> int:
        """How many lines were dropped so far."""
        return self._refused + self._unwritten

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.put(self.format(record))
        except Exception:  # noqa: BLE001 - logging must never fail its caller
            self._refused += 1

    def put(self, line: str) -> None:
        """Queue a line to be written, unless too many wait."""
        try:
            self._waiting.put_nowait(f"{line}\n".encode(errors="backslashreplace"))
        except Full:
            self._refused += 1

    def flush(self) -> None:
        """Wait until all lines are written, 0.3 seconds at most."""
        queue = self._waiting
        with queue.all_tasks_done:
            queue.all_tasks_done.wait_for(
                lambda: not queue.unfinished_tasks, _LAST_LINES.total_seconds()
            )

    def _write_all(self) -> None:
        while True:
            line = self._waiting.get()
            try:
                _write(self._descriptor, line)
                self._report()
            except OSError:
                self._unwritten += 1
            self._waiting.task_done()

    def _report(self) -> None:
        missing = self.dropped - self._reported
        if missing and not self._waiting.full():
            self._reported += missing
            _log.warning("log lines were dropped", lines=missing, total=self.dropped)


def _write(descriptor: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Another process that shares the descriptor may have made it non-blocking.
            select.select([], [descriptor], [])


def _without_values(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Reduce an exception to types and places: its message may quote rows or secrets."""
    if given := event.pop("exc_info", None):
        # A library may log an error that it no longer handles, such as that of a task.
        error = given[1] if isinstance(given, tuple) else sys.exception()
        event["exception"] = _places(error) if error else []
    return event


def _places(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [type(error).__name__]
    lines += [f"  {frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    inner = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    if error.__cause__ is not None:
        inner.append(error.__cause__)
    return lines + [f"  {line}" for part in inner for line in _places(part)]
