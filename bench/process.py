"""The real daemon and commands as processes of a bench: what they report, and what they use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg

BACKEND = "wxyc_schema"
MEGABYTE = 2**20


class RunningDaemon:
    """A `listener run` process: its largest memory so far, and what it reported when it stopped."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.report: dict[str, Any] = {}
        self.largest_rss = 0
        self.url = ""
        self._following = threading.Event()
        self._stopped = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "listener", "run"],
            # Several benches may run beside each other and beside a daemon.
            env={**os.environ, "HTTP_BIND": "127.0.0.1:0", **environment},  # noqa: TID251
            stderr=subprocess.PIPE,
            text=True,
        )
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._watch_memory, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        if not self._following.wait(120):
            message = "the daemon did not begin to follow the library within 120 s"
            raise RuntimeError(message)

    def stop(self) -> dict[str, Any]:
        """End the process in an orderly way; return the fields of its report."""
        self._stopped.set()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        for thread in self._threads:
            thread.join(5)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return self.report

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            event = json.loads(line) if line.startswith("{") else {"event": line}
            if event.get("event") == "page served":
                self.url = event["url"]
            elif event.get("event") == "following" and event.get("stream") == "library":
                self._following.set()
            elif event.get("event") == "stopped":
                self.report = event
            elif event.get("level", "error") in {"warning", "error"}:
                sys.stderr.write(line)

    def _watch_memory(self) -> None:
        process = psutil.Process(self.process.pid)
        while not self._stopped.wait(0.05):
            try:
                self.largest_rss = max(self.largest_rss, process.memory_info().rss)
            except psutil.NoSuchProcess:
                return


@contextmanager
def running_daemon(dsn: str, lml: str, **settings: str) -> Iterator[RunningDaemon]:
    """Run the daemon for the length of the block."""
    daemon = RunningDaemon({"DATABASE_URL": dsn, "LIBRARY_METADATA_URL": lml, **settings})
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.stop()


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended well: its output, its largest memory in bytes, its CPU seconds."""

    output: str
    largest_rss: int
    cpu: float


def begin(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Begin a command of ours that prints JSON."""
    return subprocess.Popen(
        [sys.executable, "-m", "listener", *arguments, "--json"],
        env={**os.environ, **settings},  # noqa: TID251 - handed on to a child
        stdout=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> Finished:
    """Watch a command to its end; raises `CalledProcessError` if it failed."""
    watched, largest, cpu, ticks = psutil.Process(process.pid), 0, 0.0, threading.Event()
    while process.poll() is None:
        try:
            largest = max(largest, watched.memory_info().rss)
            cpu = sum(watched.cpu_times()[:2])
        except psutil.NoSuchProcess:
            break
        ticks.wait(0.02)
    output = process.communicate()[0]
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, output)
    return Finished(output, largest, cpu)


def server_of(db: psycopg.Connection[Any]) -> psutil.Process:
    """Return the process that all sessions of a server descend from."""
    server = psutil.Process(db.info.backend_pid).parent()
    assert server is not None
    return server


def cpu_of(process: psutil.Process) -> float:
    """Return the CPU seconds of a process, its children, and those of its children that ended."""
    total = sum(process.cpu_times()[:4])
    for child in process.children():
        try:
            total += sum(child.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return float(total)
