"""The demo as a person runs it, without a terminal."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from listener.cli import main

pytestmark = pytest.mark.timeout(180)

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the demo makes its own folder; short, because a socket lies in it."""
    folder = Path(tempfile.mkdtemp(prefix="ld-"))
    folder.chmod(0o755)
    yield folder
    for process in _left(folder):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "listener", "demo", *arguments],
        # Everything that the demo starts inherits it, which distinguishes its processes.
        env={"TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _left(folder: Path) -> list[psutil.Process]:
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            belongings = [process.cwd(), *process.cmdline(), *process.environ().values()]
            if any(str(folder) in belonging for belonging in belongings):
                left.append(process)
    return left


def _assert_nothing_left(folder: Path) -> None:
    assert _left(folder) == []
    assert list(folder.glob("listener-demo-*")) == []


def test_demo_plays_a_week_and_leaves_nothing(folder: Path) -> None:
    with _demo(folder, "--seconds", "10", "--releases", "100") as process:
        printed, _ = process.communicate()

    assert process.returncode == 0, printed
    lines = printed.splitlines()
    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if line in _DAYS] == list(_DAYS)
    verdict = r"(\d[\d,.]* ms)  (single artist: .+|unresolved.*|compilation)"
    for expected in (
        r"First fill: 100 releases in one transaction",
        r"  answered +\d+ single artists, \d+ unresolved, \d+ compilations  [\d.]+ s",
        r"  asked +100 questions in \d+ calls? to LML, at most \d at a time",
        rf"  add +.+ – .+ {verdict}",
        r"  add +Various Artists – .+ [\d,.]+ ms  \d\d of 24 credits linked to artists",
        r"  plays +25 releases played once more +nothing to ask",
        r"  asked +\d+ questions for \d+ changed rows, \d\.\d\d per row",
        r"  latency +p50 .+ ms of \d+ single changes? to an idle listener; .+",
        r"  outbox +empty",
        r"  history +\d+ former identit(y|ies) kept: .+",
        r"  history +\d+ former identit(y|ies) kept; none is still in use",
        r"  nothing lost  every release has the verdict on its current names",
        r"Stopped everything, removed the folder\.",
    ):
        assert any(re.fullmatch(expected, line) for line in lines), f"{expected}\n{printed}"
    _assert_nothing_left(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_stopped_midway_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    with _demo(folder, "--seconds", "30") as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "Monday":
            assert process.poll() is None
        running = [" ".join(left.cmdline()) for left in _left(folder)]
        process.send_signal(number)
        printed, _ = process.communicate()

    assert any("listener run" in command for command in running)
    assert any("simulator" in command for command in running)
    assert any("postgres" in command for command in running)
    assert process.returncode == 128 + number, printed
    assert printed.endswith("Stopped everything, removed the folder.\n")
    assert "Traceback" not in printed
    _assert_nothing_left(folder)


def test_demo_whose_daemon_dies_fails_and_leaves_nothing(folder: Path) -> None:
    with _demo(folder, "--seconds", "30") as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "Monday":
            assert process.poll() is None
        daemons = [left for left in _left(folder) if left.cmdline()[-2:] == ["listener", "run"]]
        daemons[0].kill()
        printed, _ = process.communicate()

    assert process.returncode == 1, printed
    assert "the daemon ended with exit code -9; its log ends:" in printed
    _assert_nothing_left(folder)


def test_demo_without_its_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("listener.cli.demo.find_spec", lambda _: None)

    result = CliRunner().invoke(main, ["demo"])

    assert result.exit_code == 2
    assert "install the wheel as 'WHEEL[demo]'" in result.stderr


def test_demo_refuses_a_folder_with_other_contents(folder: Path) -> None:
    (folder / "thesis.txt").touch()

    result = CliRunner().invoke(main, ["demo", "--folder", str(folder)])

    assert result.exit_code == 2
    assert "has other contents" in result.output
    assert list(folder.iterdir()) == [folder / "thesis.txt"]
