"""What holds for every command, those of tomorrow included: help, examples, errors, Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import psutil
import pytest

from listener.cli import main
from listener.cli.errors import BROKE, COULD_NOT_RUN, NOT_WANTED, Commands
from tests.acceptance.conftest import WAIT_SECONDS, eventually
from tests.acceptance.terminal import on_terminal
from tests.commands import NAMES, command_of
from tests.conftest import Connection

# What each needs beside its name; those that are not here need nothing.
ARGUMENTS = {
    "find": ["x"],
    "list": ["parked"],
    "why": ["1"],
    "history": ["1"],
    "requeue": ["--all"],
    "completion": ["bash"],
    "uninstall": ["--yes"],
    "roles": ["--role", "x"],
}
# They look at no database: one prints a script, one a text, one brings its own.
WITHOUT_DATABASE = {"completion", "demo", "runbook"}
ON_THE_DATABASE = [name for name in NAMES if name not in WITHOUT_DATABASE]
WITHOUT_LML = {"LIBRARY_METADATA_URL": "http://127.0.0.1:1"}
INTERRUPTED = 128 + signal.SIGINT


def words(name: str) -> list[str]:
    return [sys.executable, "-m", "listener", name, *ARGUMENTS.get(name, [])]


def execute(*command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PATH": os.defpath, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return execute(sys.executable, "-m", "listener", *arguments, **settings)


def through_sh(line: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a line of sh, in which "$0" is Python."""
    return execute("/bin/sh", "-c", line, sys.executable, **settings)


def in_shell(line: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which `listener` is the program."""
    program = f'listener() {{ {shlex.quote(sys.executable)} -m listener "$@"; }}; '
    return execute("bash", "--norc", "-c", program + line, **settings)


def context() -> click.Context:
    return click.Context(main, info_name="listener", terminal_width=80)


def examples_of(command: click.Command) -> list[str]:
    """Return the command lines of the examples in the help of a command."""
    _, _, shown = command.get_help(context()).partition("Examples:\n")
    lines = [re.split(r"  +", line.strip(), maxsplit=1) for line in shown.splitlines() if line]
    assert all(len(line) == 2 for line in lines), shown
    return [line for line, _ in lines]


def test_every_command_has_one_line_in_the_list() -> None:
    listed = main.get_help(context()).partition("Commands:\n")[2].partition("Examples:")[0]
    lines = [line for line in listed.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == NAMES
    assert all(line.endswith(".") and not line.endswith("...") for line in lines), listed


@pytest.mark.parametrize("name", NAMES)
def test_help_has_examples_that_are_understood(name: str) -> None:
    examples = examples_of(command_of(name))
    assert examples
    for line in examples:
        found = re.search(rf"\blistener {name}([^)|>]*)", line)
        assert found is not None, line
        with command_of(name).make_context(name, shlex.split(found[1]), parent=context()):
            pass


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_description(name: str) -> None:
    options = [entry for entry in command_of(name).params if isinstance(entry, click.Option)]
    assert all(option.help and option.help.endswith((".", "]")) for option in options)


@pytest.mark.parametrize("arguments", [(), *((name,) for name in NAMES)])
def test_help_goes_to_standard_output_without_colours(arguments: tuple[str, ...]) -> None:
    shown = run(*arguments, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"Usage: {' '.join(('listener', *arguments))} ")
    assert "\x1b" not in shown.stdout


@pytest.mark.parametrize("name", NAMES)
def test_unknown_option_is_a_usage_error(name: str) -> None:
    refused = run(name, "--nonsense")
    assert (refused.returncode, refused.stdout) == (COULD_NOT_RUN, "")
    assert f"Try 'listener {name} --help' for help." in refused.stderr


def test_version_is_reported() -> None:
    assert re.fullmatch(r"listener, version \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize("name", [name for name in ON_THE_DATABASE if name != "doctor"])
def test_wrong_settings_are_reported_without_a_traceback(name: str) -> None:
    wrong = run(*words(name)[3:], DATABASE_URL="mysql://u:geheim@db/x")
    assert (wrong.returncode, wrong.stdout) == (COULD_NOT_RUN, "")
    assert all(line.startswith("listener: ") for line in wrong.stderr.splitlines())
    assert "DATABASE_URL" in wrong.stderr
    assert "geheim" not in wrong.stderr


@pytest.mark.parametrize(
    "name", [name for name in ON_THE_DATABASE if name not in {"doctor", "run", "settings"}]
)
def test_unreachable_database_is_reported_with_advice(name: str) -> None:
    settings = {"DATABASE_URL": "postgresql://u:geheim@127.0.0.1:1/x", **WITHOUT_LML}
    ran = run(*words(name)[3:], **settings)
    assert ran.returncode == COULD_NOT_RUN
    (line,) = ran.stderr.splitlines()
    assert line.startswith("listener: connection failed: ")
    assert line.endswith(": Connection refused; start PostgreSQL, or correct DATABASE_URL")
    assert "geheim" not in line
    assert not ran.stdout


def test_dry_run_that_never_began_reports_no_counts() -> None:
    ran = run("sweep", "--dry-run", DATABASE_URL="postgresql://u@127.0.0.1:1/x", **WITHOUT_LML)
    assert (ran.returncode, ran.stdout) == (COULD_NOT_RUN, "")


def test_debug_shows_the_traceback_before_the_message() -> None:
    wrong = run("--debug", "status", DATABASE_URL="mysql://db/x")
    assert wrong.returncode == COULD_NOT_RUN
    assert wrong.stderr.startswith("Traceback (most recent call last):\n")
    assert wrong.stderr.splitlines()[-1].startswith("listener: DATABASE_URL")


@pytest.mark.parametrize("debug", [False, True])
def test_bug_is_reported_with_its_place_but_not_its_message(
    capsys: pytest.CaptureFixture[str], debug: bool
) -> None:
    @click.group(cls=Commands)
    @click.option("--debug", is_flag=True)
    def program(*, debug: bool) -> None:
        del debug

    @program.command()
    def broken() -> None:
        raise ExceptionGroup("two", [KeyError("Stereolab"), ValueError("x")])

    with pytest.raises(SystemExit) as ended:
        program(["--debug", "broken"] if debug else ["broken"])
    assert ended.value.code == BROKE
    said = capsys.readouterr().err
    assert "listener: KeyError at " in said
    assert ("Traceback" in said) == debug
    assert ("Stereolab" in said) == debug


@contextmanager
def silent_server() -> Iterator[str]:
    """Yield the URL of what takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"postgresql://u@127.0.0.1:{server.getsockname()[1]}/x"


@contextmanager
def started(name: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        words(name),
        env={"PATH": os.defpath, **WITHOUT_LML, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", [name for name in ON_THE_DATABASE if name != "settings"])
def test_interrupt_ends_a_command_that_waits_for_the_database(name: str) -> None:
    with silent_server() as url, started(name, DATABASE_URL=url) as process:
        eventually(lambda: connections_to(url, process.pid) > 0)
        process.send_signal(signal.SIGINT)
        # Sooner than the time after which it would give up by itself.
        stdout, stderr = process.communicate(timeout=3)
        assert process.returncode == (0 if name == "run" else INTERRUPTED), stderr
        assert "Traceback" not in stderr
        assert stdout == ("" if name not in {"sweep", "backfill"} else stdout)


def connections_to(url: str, pid: int) -> int:
    """Return how many connections a process has to a port of this machine."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    open_now = psutil.Process(pid).net_connections(kind="tcp")
    return sum(bool(connection.raddr) and connection.raddr.port == port for connection in open_now)


def test_interrupt_ends_a_migration_that_waits_for_another(dsn: str, db: Connection) -> None:
    db.execute("SELECT pg_advisory_lock(1280528978, 0)")
    with started("migrate", DATABASE_URL=dsn) as process:
        waiting = (
            "SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database"
            " WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted"
        )
        eventually(lambda: bool(db.execute(waiting).fetchall()))
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=WAIT_SECONDS) == ("", "")
        assert process.returncode == INTERRUPTED


def test_interrupt_during_loading_prints_nothing(tmp_path: Path) -> None:
    # Stands for a library of which the loading takes long.
    (tmp_path / "click.py").write_text(
        "import threading\nprint('loading', flush=True)\nthreading.Event().wait(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "listener", "run"],
        env={"PATH": os.defpath, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in stderr


@pytest.mark.parametrize("name", ["uninstall", "migrate"])
@pytest.mark.parametrize(("typed", "code"), [("n\n", NOT_WANTED), ("\x03", INTERRUPTED)])
def test_unconfirmed_question_changes_nothing(
    dsn: str, db: Connection, name: str, typed: str, code: int
) -> None:
    db.execute("DELETE FROM listener.installed WHERE name = 'triggers/library'")
    installed = "SELECT count(*) FROM listener.installed"
    before = db.execute(installed).fetchall()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "listener", name],
        env={"PATH": os.defpath, "DATABASE_URL": dsn},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: _take_terminal(theirs),  # noqa: PLW1509 - nothing else runs in the child
    )
    os.close(theirs)
    shown = ""
    while "[y/N]: " not in shown:
        shown += os.read(ours, 4096).decode()
    with suppress(OSError):
        while True:
            # A signal that comes just before Python begins to read does not interrupt the reading.
            os.write(ours, typed.encode())
            while select.select([ours], [], [], 2)[0]:
                shown += os.read(ours, 4096).decode()
    os.close(ours)
    assert process.wait(WAIT_SECONDS) == code
    assert ("nothing was done" in shown) is (code == NOT_WANTED)
    assert "Traceback" not in shown
    assert "Aborted" not in shown
    assert db.execute(installed).fetchall() == before


def _take_terminal(descriptor: int) -> None:
    import fcntl  # noqa: PLC0415
    import termios  # noqa: PLC0415

    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


def test_question_without_a_terminal_gives_advice(dsn: str) -> None:
    ran = run("uninstall", DATABASE_URL=dsn)
    assert (ran.returncode, ran.stdout) == (NOT_WANTED, "")
    assert "use --yes" in ran.stderr


def test_question_on_a_closed_input_counts_as_unanswered(dsn: str) -> None:
    ran = through_sh('exec "$0" -m listener uninstall <&-', DATABASE_URL=dsn)
    assert ran.returncode == NOT_WANTED
    assert "use --yes to skip the question" in ran.stderr


@pytest.mark.parametrize("most", [6, 10])
@pytest.mark.parametrize("name", NAMES)
def test_low_limit_of_open_files_is_reported(name: str, most: int) -> None:
    arguments = shlex.join([name, *ARGUMENTS.get(name, [])])
    ran = through_sh(f'ulimit -n {most} && exec "$0" -m listener {arguments}')
    assert ran.returncode == COULD_NOT_RUN
    assert ran.stderr.startswith(f"listener: this process may open {most} files, and ")
    assert len(ran.stderr.splitlines()) == 1


def test_reader_that_disconnects_is_not_an_error(dsn: str) -> None:
    done = in_shell("listener status | head -1", DATABASE_URL=dsn)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Failing: ")


@pytest.mark.parametrize("words", ["doctor", "status", "status --watch", "--help", "status --help"])
def test_command_whose_reader_has_left_ends_quietly(dsn: str, words: str) -> None:
    line = f"listener {words} | true; exit ${{PIPESTATUS[0]}}"
    ran = in_shell(line, DATABASE_URL=dsn)
    assert (ran.returncode, ran.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize(
    ("where", "reason"),
    [("/dev/full", "No space left on device"), ("&-", "Bad file descriptor")],
)
@pytest.mark.parametrize("words", ["doctor", "status", "--help", "status --help", "--version"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_reported(
    dsn: str, where: str, reason: str, words: str, unbuffered: str
) -> None:
    settings = {"DATABASE_URL": dsn, "PYTHONUNBUFFERED": unbuffered}
    ran = in_shell(f"listener {words} >{where}", **settings)
    said = f"listener: cannot write to standard output: {reason}\n"
    assert (ran.returncode, ran.stderr) == (COULD_NOT_RUN, said)


@pytest.mark.parametrize("where", ["/dev/full", "&-"])
@pytest.mark.parametrize("words", ["status", "sweep", "run", "--debug doctor", "nonsense"])
def test_unwritable_standard_error_changes_no_exit_code(where: str, words: str) -> None:
    settings = {"DATABASE_URL": "nowhere", "LIBRARY_METADATA_URL": "nowhere"}
    ran = in_shell(f"listener {words} 2>{where}", **settings)
    said = in_shell(f"listener {words}", **settings)
    assert ran.returncode == said.returncode != 0
    assert said.stderr or said.stdout
    assert (ran.stdout, ran.stderr) == (said.stdout, "")


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_log_is_coloured_on_a_terminal_unless_it_is_turned_off(
    no_color: str, coloured: bool
) -> None:
    logging = (
        "import structlog; from listener.adapters.log import configure_logs;"
        " configure_logs('INFO'); structlog.stdlib.get_logger().info('at work')"
    )
    code, shown = on_terminal(sys.executable, "-c", logging, NO_COLOR=no_color)
    assert code == 0
    assert "at work" in shown
    assert ("\x1b" in shown) == coloured


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(shell: str) -> None:
    printed = run("completion", shell)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert f"_LISTENER_COMPLETE={shell}_complete" in printed.stdout


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("listener swe", ["sweep"]),
        ("listener sweep --only fai", ["failed"]),
        ("listener sweep --dr", ["--dry-run"]),
        ("listener completion b", ["bash"]),
    ],
)
def test_bash_completes(line: str, completed: list[str]) -> None:
    count = len(line.split())
    script = (
        "export -f listener;"
        " eval \"$(listener completion bash | sed 's/env \\(COMP_WORDS\\)/\\1/')\";"
        f" COMP_WORDS=({line}); COMP_CWORD={count - 1}; _listener_completion listener;"
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = in_shell(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == completed, done.stderr
