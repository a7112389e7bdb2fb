"""Logs: one line an event, JSON off a terminal, readable on one."""

from __future__ import annotations

import logging
import os
import sys
import traceback

import structlog


def configure_logs(level: str) -> None:
    """Send events of at least `level` to standard error, those of libraries included."""
    terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_values,
    ]
    # A convention of terminals, no setting of ours.
    colours = not os.environ.get("NO_COLOR")  # noqa: TID251
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=colours)
        if terminal
        else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "asyncio", "apscheduler"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Its warnings are about connections that we hear of, and speak of, ourselves.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    # What strangers send is no event of ours.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
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


def _without_values(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Reduce an exception to types and places: messages and locals may quote rows or secrets."""
    if event.pop("exc_info", None):
        error = sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1]
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
