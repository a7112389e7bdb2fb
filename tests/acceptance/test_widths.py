"""Every command fits a narrow, a common and a wide terminal: nothing is cut, words stay whole."""

from __future__ import annotations

import re
import sys

import pytest
from psycopg import sql
from rich.cells import cell_len

from listener.cli.help import HelpContext
from tests.acceptance.conftest import LML_KEY
from tests.acceptance.terminal import on_terminal
from tests.acceptance.test_parked import park
from tests.catalogue import add_identity, add_release, table
from tests.commands import NAMES, command_of
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(120)

WIDTHS = (60, 80, 140)
ARTIST = "The Very Long Name Of A Band That Nobody Ever Wrote On One Line, With 夜の電車工房"
TITLE = "Songs From A Time When Titles Filled The Front Of A Sleeve And Its Back"
# Programs, in a language in which a line means something, are copied as they are.
PROGRAMS = {"completion": ["bash"], "roles": ["--role", "somebody"]}
# One serves until it is stopped, the other one plays for a minute.
LONG = {"run", "demo"}
SHOWN = [
    ["status"],
    ["doctor"],
    ["settings"],
    ["runbook"],
    ["runbook", "alerts"],
    ["runbook", "parked-rows"],
    ["find", "very", "long"],
    ["why", "very", "long"],
    ["why", "4711"],
    ["why", "4799"],
    ["history", "4711"],
    ["history", "4799"],
    ["parked"],
    ["list", "unresolved"],
    ["list", "low-confidence"],
    ["list", "parked"],
    ["list", "rotation"],
    ["requeue", "4799"],
    ["migrate"],
    ["migrate", "--check"],
    ["uninstall"],
    ["backfill", "--plan"],
    ["sweep"],
    ["sweep", "--stream", "nothing"],
]
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_every_command_is_tested() -> None:
    tried = {words[0] for words in SHOWN}
    assert tried | PROGRAMS.keys() | LONG == set(NAMES)


@pytest.fixture
def furnished(db: Connection) -> None:
    """Add releases with long names; some are parked, unsure, or in rotation without an identity."""
    for number in range(4711, 4716):
        row = add_release(db, f"{ARTIST} {number}")
        db.execute(
            sql.SQL("UPDATE {} SET id = %s, album_title = %s WHERE id = %s").format(
                table("library")
            ),
            (number, TITLE, row),
        )
    add_identity(db, 4711)
    db.execute(sql.SQL("UPDATE {} SET confidence = 0.3").format(table("library_identity")))
    park(db, 4712)
    park(db, 4713)
    db.execute(
        "INSERT INTO listener.ledger (library_id, question, ask_order, outcome, answered_at,"
        " next_ask_at) VALUES (4714, '', 0, 'unresolved', now(), now() + interval '7 d')"
    )
    db.execute(
        sql.SQL("INSERT INTO {} (album_id, rotation_bin) VALUES (4715, 'H')").format(
            table("rotation")
        )
    )


def printed(width: int, words: list[str], settings: dict[str, str]) -> list[str]:
    """Return the lines that a command shows on a terminal of this width."""
    command = (sys.executable, "-m", "listener", *words)
    _, shown = on_terminal(*command, width=width, **settings)
    text = _ESCAPES.sub("", shown)
    assert "Traceback" not in text
    # What is moved over shows what comes last.
    return [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]


def fits(line: str, width: int) -> bool:
    """Return whether a line fits, or is one word, which a terminal may break as it likes."""
    return cell_len(line) <= width or len(line.split()) == 1


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_output_fits_the_terminal(
    words: list[str], dsn: str, owner_dsn: str, lml: str, furnished: None
) -> None:
    owner = words[0] in {"migrate", "uninstall"}
    settings = {
        "DATABASE_URL": owner_dsn if owner else dsn,
        "LIBRARY_METADATA_URL": lml,
        "LML_API_KEY": LML_KEY,
    }
    for width in WIDTHS:
        lines = printed(width, words, settings)
        assert any(lines)
        commands = words[0] == "runbook"
        for line in lines:
            # Commands in a runbook are copied as they are.
            assert fits(line, width) or (commands and line.startswith("    ")), (width, line)
            assert "…" not in line


@pytest.mark.parametrize("words", [["list", "unresolved"], ["find", "very", "long"]], ids=" ".join)
def test_long_names_wrap_in_their_columns(words: list[str], dsn: str, furnished: None) -> None:
    header, *lines = printed(80, words, {"DATABASE_URL": dsn})
    assert {"id", "artist", "title"} < set(header.split())
    shown = {word for line in lines for word in line.split()}
    assert set(f"{ARTIST} {TITLE}".split()) <= shown


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_help_fits_the_terminal(name: str, width: int) -> None:
    context = HelpContext(command_of(name), info_name=f"listener {name}", terminal_width=width - 2)
    text = context.command.get_help(context)
    assert "Examples:\n" in text
    for line in text.splitlines():
        assert fits(line, width), line


def test_terminal_gets_the_help_that_fits() -> None:
    lines = printed(60, ["list", "--help"], {})
    assert "    listener list rotation --csv > rotation.csv" in lines
    assert "        the whole list, for a spreadsheet" in lines
