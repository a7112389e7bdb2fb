"""Runs tests on every major version of PostgreSQL that is supported, or on some of them."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import click
import psycopg

from tests.server.binaries import VERSIONS, BinariesError, unpack
from tests.server.running import CARELESS

_START_SECONDS = 60
# Ends the server when standard input ends: it does not outlive this process, however that ends.
_UNTIL_WE_END = '"$0" "$@" & read -r _; kill -INT $!; wait'
_CLUSTER = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
# All workers share the one server.
_SETTINGS = {**CARELESS, "listen_addresses": "", "max_connections": "500"}
_OPTIONS = tuple(f"--{name}={value}" for name, value in _SETTINGS.items())


@contextmanager
def server(version: int) -> Iterator[str]:
    """Run a fresh server of a major version for the length of the block; yields its DSN."""
    # Short: a socket's path may not exceed 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="listener-pg-"))
    # PostgreSQL refuses to work as root.
    user = "nobody" if os.geteuid() == 0 else None
    try:
        programs = unpack(version, folder)
        if user:
            shutil.chown(folder, user)
        data = folder / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, *_CLUSTER],
            stdout=subprocess.DEVNULL,
            user=user,
            check=True,
        )
        command = ["sh", "-c", _UNTIL_WE_END, f"{programs}/postgres", "-D", f"{data}"]
        command += ["-k", f"{folder}", *_OPTIONS]
        with (
            (folder / "log").open("w") as log,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stderr=log,
                user=user,
                # Ctrl-C is for the tests; the server ends after them.
                start_new_session=True,
            ) as process,
        ):
            try:
                yield _when_ready(f"postgresql://postgres@/postgres?host={folder}", process)
            finally:
                process.communicate(b"")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _when_ready(dsn: str, process: subprocess.Popen[bytes]) -> str:
    pause, deadline = Event(), time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            pause.wait(0.1)
        else:
            return dsn


def run(version: int, arguments: Sequence[str]) -> int:
    """Run pytest on a server of a major version; return its exit code."""
    with server(version) as dsn:
        return subprocess.run(
            [sys.executable, "-m", "pytest", *arguments],
            env={**os.environ, "LISTENER_TEST_DATABASE_URL": dsn},  # noqa: TID251 - for a child
            check=False,
        ).returncode


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--pg",
    "chosen",
    multiple=True,
    type=click.Choice([str(version) for version in VERSIONS]),
    help="A major version, more than once for more; without it all.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(chosen: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    """Run pytest with ARGUMENTS on a fresh server of each version; exit 1 if any run failed."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise click.ClickException(
            "these programs are for Linux on x86-64; elsewhere use containers, one version a run: "
            "make test LISTENER_TEST_IMAGE=postgres:14"
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lines, failed = [], False
    for version in map(int, chosen or VERSIONS):
        click.echo(f"\n=== PostgreSQL {version}")
        began = time.monotonic()
        try:
            code = run(version, arguments)
        except (BinariesError, subprocess.CalledProcessError, psycopg.OperationalError) as error:
            raise click.ClickException(str(error)) from None
        failed = failed or bool(code)
        seconds = time.monotonic() - began
        lines.append(f"PostgreSQL {version}: {'FAILED' if code else 'ok'}, {seconds:.0f} s")
    click.echo("\n" + "\n".join(lines))
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
