"""The real process on a real PostgreSQL, asking the simulator."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from listener.simulator import Knowledge, Simulator, simulator_thread
from tests.catalogue import table
from tests.conftest import Connection, as_role, with_database

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WAIT_SECONDS = 15
LML_KEY = "secret-token-of-the-tests"
BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def eventually(fact: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    """Wait until a fact holds; fail if it does not in time."""
    ticks = threading.Event()
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not become true in time"
        ticks.wait(0.01)


class Daemon:
    """A `listener run` process and what it logged, unless that goes elsewhere."""

    def __init__(
        self,
        environment: dict[str, str],
        module: str = "listener",
        stderr: int = subprocess.PIPE,
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "run"],
            env={**os.environ, **environment},  # noqa: TID251 - handed on to a child
            stderr=stderr,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, event: str, seconds: float = WAIT_SECONDS, **fields: object) -> None:
        """Wait until an event with these fields was logged."""
        eventually(
            lambda: self.logged(event, **fields) > 0 or self.process.poll() is not None, seconds
        )
        assert self.logged(event, **fields), f"the daemon ended: {self.lines}"

    def logged(self, event: str, **fields: object) -> int:
        """Return how often an event with these fields was logged."""
        return sum(
            entry.get("event") == event and fields.items() <= entry.items()
            for entry in list(self.events)
        )

    def following(self) -> Daemon:
        """Wait until both streams are followed."""
        self.wait_for("following", stream="library")
        self.wait_for("following", stream="rotation")
        return self

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, and see a killed process off."""
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.ended()

    def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end; return the exit code."""
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self.lines.append(line)
            if line.startswith("{"):
                self.events.append(json.loads(line))


Start = Callable[..., Daemon]


@pytest.fixture
def dsn(owner_dsn: str, role: str) -> str:
    """Where the daemon and the commands connect: as a role that may do just what they do."""
    return as_role(owner_dsn, role)


@pytest.fixture
def simulator() -> Simulator:
    """LML with a verdict of one artist for everything, asking for a token."""
    return Simulator(knowledge=Knowledge(all_single=True), api_key=LML_KEY)


@pytest.fixture
def lml(simulator: Simulator) -> Iterator[str]:
    """Yield the base URL of the simulator."""
    with simulator_thread(simulator) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield the machine's own chromium; skips where there is none."""
    # Imported here: only the tests of the pages wait for it.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("there is no chromium on PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=BROWSER_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def quiet(db: Connection) -> Connection:
    """Yield a writer whose changes nobody captures."""
    for name in ("library", "rotation"):
        db.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(table(name)))
    return db


@contextmanager
def refusing_connections(owner_dsn: str) -> Iterator[None]:
    """Have the database refuse new connections during the block."""
    name = sql.Identifier(urlsplit(owner_dsn).path.removeprefix("/"))
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(with_database(owner_dsn, "postgres"), autocommit=True) as other:
        other.execute(allow.format(name, sql.SQL("false")))
        try:
            yield
        finally:
            other.execute(allow.format(name, sql.SQL("true")))


def capture_again(db: Connection) -> None:
    """Have changes captured from now on, after `quiet`."""
    for name in ("library", "rotation"):
        db.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(table(name)))


def asked(simulator: Simulator) -> list[int]:
    """Return the rows that LML was asked about, in that order and as often."""
    return [int(question.library_id) for question in simulator.calls.questions()]


@pytest.fixture
def start(dsn: str, lml: str) -> Iterator[Start]:
    """Start daemons with settings given as keywords; they end with the test."""
    with ExitStack() as stack:

        def starting(
            module: str = "listener", stderr: int = subprocess.PIPE, **settings: str
        ) -> Daemon:
            daemon = Daemon(
                {
                    "DATABASE_URL": dsn,
                    "LIBRARY_METADATA_URL": lml,
                    "LML_API_KEY": LML_KEY,
                    "HTTP_BIND": "",
                    # No border between two slots falls into a test, except where it asks for it.
                    "SWEEP_INTERVAL": "7d",
                    "AUDIT_INTERVAL": "30d",
                    "ROTATION_WARM_AT": f"{datetime.now(UTC) - timedelta(hours=12):%H:%M}",
                    **settings,
                },
                module,
                stderr,
            )
            stack.callback(_end, daemon)
            return daemon

        yield starting


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        """The JSON object that it printed."""
        parsed: dict[str, Any] = json.loads(self.stdout)
        return parsed


class Commands:
    """Runs `listener` commands against the database and the simulator of a test."""

    def __init__(self, environment: dict[str, str], stderr: int = subprocess.PIPE) -> None:
        self._environment = environment
        self._stderr = stderr

    def logging_to(self, stderr: int) -> Commands:
        """Return what runs commands with another standard error."""
        return Commands(self._environment, stderr)

    def begin(
        self, *arguments: str, module: str = "listener", **settings: str
    ) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **self._environment, **settings},  # noqa: TID251 - for a child
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )

    def run(self, *arguments: str, module: str = "listener", **settings: str) -> Outcome:
        """Run a command to its end."""
        return self.finish(self.begin(*arguments, module=module, **settings))

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> Outcome:
        """Wait for the end of a command; it is killed if it takes too long."""
        try:
            stdout, stderr = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
        return Outcome(process.returncode, stdout, stderr)


@pytest.fixture
def listener(dsn: str, lml: str) -> Commands:
    """Run commands with settings given as keywords."""
    return Commands(
        {
            "DATABASE_URL": dsn,
            "LIBRARY_METADATA_URL": lml,
            "LML_API_KEY": LML_KEY,
        }
    )


def _end(daemon: Daemon) -> None:
    if daemon.process.poll() is None:
        daemon.process.send_signal(signal.SIGCONT)
        daemon.kill()
    daemon.ended()
    # Shown by pytest where the test failed.
    sys.stdout.writelines(daemon.lines)
