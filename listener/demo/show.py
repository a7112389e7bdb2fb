"""Joins the embedded PostgreSQL, the LML simulator and the real daemon into `listener demo`."""

from __future__ import annotations

import asyncio
import shlex
import signal
import socket
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from subprocess import SubprocessError
from types import FrameType

import httpx
import psycopg

from listener.adapters.postgres.installation import install, installing
from listener.demo.catalogue import Release, releases
from listener.demo.choices import DemoFailedError, DemoOptions, UnfitError, catalogue_of, folder_of
from listener.demo.daemon import Daemon
from listener.demo.ending import stay, sum_up
from listener.demo.opening import first_fill
from listener.demo.play import Play
from listener.demo.screen import Screen
from listener.demo.stage import database, program, row_latency, simulator
from listener.demo.story import Story
from listener.demo.watch import watching
from listener.demo.writers import writing
from listener.domain.faults import FixableError
from listener.domain.words import plural
from listener.simulator import SimulatorProcess

_SCHEMA = "wxyc_schema"
_EDIT = "UPDATE wxyc_schema.library SET album_title = album_title || ' (Live)' WHERE id = 7"
_TOKEN = "demo-token"  # noqa: S105 - the simulator's, on this machine only
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ARRIVALS = 200
_FAILED, _COULD_NOT_RUN = 1, 2

_FAILURES = (
    DemoFailedError,
    FixableError,
    psycopg.Error,
    httpx.HTTPError,
    SubprocessError,
    RuntimeError,
    OSError,
)


def run_demo(options: DemoOptions) -> int:
    """Play the demo; return the exit code. Nothing is left running."""
    screen = Screen()
    try:
        catalogue = catalogue_of(options)
        with folder_of(options) as folder:
            code = asyncio.run(_Demo(options, folder, screen).play(catalogue))
    except UnfitError as error:
        screen.complaint(f"listener demo: {error}")
        return _COULD_NOT_RUN
    kept = f"kept {options.folder}" if options.folder else "removed the folder"
    screen.heading(f"Stopped everything, {kept}.")
    return code


class _Demo:
    """One run of the demo."""

    def __init__(self, options: DemoOptions, folder: Path, screen: Screen) -> None:
        self._options = options
        self._folder = folder
        self._screen = screen
        self._signal: int | None = None
        self._is_over = False

    async def play(self, catalogue: list[Release]) -> int:
        """Play it from set-up to end; return the exit code."""
        self._cancel_on_signals()
        try:
            with ExitStack() as stack:
                await self._play(stack, catalogue)
        except asyncio.CancelledError:
            if self._signal is None:
                raise
            return 0 if self._is_over else 128 + self._signal
        except _FAILURES as error:
            if self._signal is not None:
                return 128 + self._signal
            self._screen.heading("The demo failed")
            self._screen.complaint(str(error) or type(error).__name__)
            return _FAILED
        return 0

    async def _play(self, stack: ExitStack, catalogue: list[Release]) -> None:
        dsn = await self._set_up_database(stack)
        lml = await self._set_up_lml(stack)
        bind = _free_address()
        settings = _settings(dsn, lml) | {"HTTP_BIND": bind}
        daemon = stack.enter_context(Daemon(settings, self._folder, self._log()))
        async with (
            watching(dsn, _SCHEMA, daemon.require) as watch,
            writing(dsn, _SCHEMA) as writers,
        ):
            call = self._options.latency + row_latency(self._options.latency)
            play = Play(_SCHEMA, writers, watch, lml, daemon, self._screen, call)
            entries = await watch.entries()
            began = _now()
            former = await watch.holders()
            daemon.start()
            await watch.followed(former)
            self._fact("daemon", f"listener run, process {daemon.pid}{self._log_note()}", began)
            self._fact("page", f"http://{bind}/")
            end = _now() + self._options.seconds
            await first_fill(play, dsn, catalogue)
            arrivals = releases(_ARRIVALS, seed=entries + 2)
            await Story(play, arrivals).play(end - _now())
            await sum_up(play, entries)
            if self._options.keep_running:
                self._is_over = True
                await stay(play, {"page": f"http://{bind}/", **self._commands(dsn, lml)})
        self._stop(daemon)

    async def _set_up_database(self, stack: ExitStack) -> str:
        self._screen.heading("Set-up")
        began = _now()
        dsn, version, is_new = stack.enter_context(database(self._folder / "data", _SCHEMA))
        self._fact("PostgreSQL", f"{version} in {self._folder / 'data'}", began)
        if is_new:
            self._fact("backend", f"its tables and its own triggers, in {_SCHEMA}")
        await _interruption()
        async with installing(dsn) as connection:
            done = await install(connection, _SCHEMA)
        steps = f"{plural(len(done), 'step')}: schema listener and the triggers are installed"
        self._fact("migrate", steps if done else "nothing to do")
        await _interruption()
        return dsn

    async def _set_up_lml(self, stack: ExitStack) -> SimulatorProcess:
        began = _now()
        latency = self._options.latency
        lml = stack.enter_context(simulator(latency, _TOKEN))
        speed = f"{_ms(latency)} a call and {_ms(row_latency(latency))} a row"
        self._fact("LML", f"simulator on {lml.url}, {speed}", began)
        await _interruption()
        return lml

    def _stop(self, daemon: Daemon) -> None:
        code = daemon.stop()
        if code:
            raise DemoFailedError(f"the daemon stopped with exit code {code}")

    def _commands(self, dsn: str, lml: SimulatorProcess) -> dict[str, str]:
        values = _settings(dsn, lml).items()
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in values)
        listener = f"{settings} {shlex.quote(sys.executable)} -m listener"
        psql = f"{shlex.quote(str(program('psql')))} {shlex.quote(dsn)}"
        return {
            "database": dsn,
            "LML": f"{lml.url} (switches and counters: {lml.url}/_simulator)",
            "psql": psql,
            "try": f'{psql} -c "{_EDIT}"',
            "check": f"{listener} migrate --check",
            "standby": f"HTTP_BIND= {listener} run",
            "log": f"tail -f {shlex.quote(str(self._log()))}" if self._log() else "shown here",
        }

    def _log(self) -> Path | None:
        return None if self._options.verbose else self._folder / "daemon.log"

    def _log_note(self) -> str:
        return f", log {self._log()}" if self._log() else ""

    def _fact(self, label: str, text: str, began: float | None = None) -> None:
        took = None if began is None else timedelta(seconds=_now() - began)
        self._screen.fact(label, text, took=took)

    def _cancel_on_signals(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def on_signal(number: int, _: FrameType | None) -> None:
            # Only once: a second signal must not interrupt the clean-up.
            if self._signal is None and task is not None:
                self._signal = number
                if not loop.is_closed():
                    loop.call_soon_threadsafe(task.cancel)

        for number in _SIGNALS:
            signal.signal(number, on_signal)


def _settings(dsn: str, lml: SimulatorProcess) -> dict[str, str]:
    return {
        "DATABASE_URL": dsn,
        "LIBRARY_METADATA_URL": lml.url,
        "LML_API_KEY": _TOKEN,
        "WXYC_SCHEMA_NAME": _SCHEMA,
    }


def _free_address() -> str:
    # One port for the whole demo, so that a browser finds the daemon again after the kill.
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


async def _interruption() -> None:
    """Let a signal that came during set-up take effect; set-up itself is not interrupted."""
    await asyncio.sleep(0)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _ms(duration: timedelta) -> str:
    return f"{duration.total_seconds() * 1000:.3g} ms"
