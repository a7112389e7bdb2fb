"""The commands that look: exit codes, pipes, terminals, Ctrl-C."""

from __future__ import annotations

import codecs
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.acceptance.conftest import (
    WAIT_SECONDS,
    Commands,
    Start,
    eventually,
    refusing_connections,
)
from tests.catalogue import add_release, outbox_size
from tests.conftest import Connection, with_database

pytestmark = pytest.mark.timeout(90)

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_UP = re.compile(r"\x1b\[\d*A")
STATE = (
    *("history_id", "superseded_at", "superseded_reason", "method", "confidence"),
    *("last_verified_at", "wikidata_qid", "spotify_id", "apple_music_id", "discogs_master_id"),
    *("discogs_release_id", "musicbrainz_release_group_mbid", "musicbrainz_release_mbid"),
    *("musicbrainz_recording_mbid", "agreement_sources", "notes"),
)


def look(dsn: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing set but where the database is, and what is given."""
    return subprocess.run(
        [sys.executable, "-m", "listener", *arguments],
        env={"DATABASE_URL": dsn, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )


def keys(value: object) -> object:
    """Return the keys of JSON, in their order; of a list those of its first element."""
    if isinstance(value, dict):
        return {key: keys(inner) for key, inner in value.items()}
    if isinstance(value, list) and value:
        return [keys(value[0])]
    return None


class Watched:
    """A watching process and all that it printed; on a terminal if asked for."""

    def __init__(self, dsn: str, *arguments: str, terminal: bool = False, **settings: str) -> None:
        self.text = ""
        ours, theirs = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "listener", "status", "--watch", *arguments],
            env={"DATABASE_URL": dsn, "TERM": "xterm-256color", "COLUMNS": "120", **settings},
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()

    def shows(self, text: str, times: int) -> None:
        """Wait until a text was printed that often."""
        eventually(
            lambda: self.text.count(text) >= times or self.process.poll() is not None, WAIT_SECONDS
        )
        assert self.text.count(text) >= times

    def complaint(self) -> str:
        """Wait for a line on standard error, and return it."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def interrupt(self) -> tuple[int, str]:
        """Send what Ctrl-C sends; return the exit code and what was said about it."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        assert self.process.stderr is not None
        return code, self.process.stderr.read()

    def _read(self, ours: int) -> None:
        # A piece may end in the midst of a letter.
        decoder = codecs.getincrementaldecoder("utf-8")()
        with os.fdopen(ours, "rb", buffering=0) as output:
            try:
                while data := output.read(65536):
                    self.text += decoder.decode(data)
            except OSError:
                # A terminal that nobody writes to any more.
                return


@contextmanager
def watching(
    dsn: str, *arguments: str, terminal: bool = False, **settings: str
) -> Iterator[Watched]:
    """Watch for the length of the block."""
    watched = Watched(dsn, *arguments, terminal=terminal, **settings)
    try:
        yield watched
    finally:
        watched.process.kill()
        watched.process.wait()
        if watched.process.stderr is not None:
            watched.process.stderr.close()


def test_status_needs_nothing_but_the_database(db: Connection, dsn: str) -> None:
    add_release(db)
    done = look(dsn, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert re.search(r"library +1 +\d+ s +\S+ +no daemon", done.stdout)
    assert done.stdout.startswith("Failing: no daemon follows library; start one\n")
    assert "no runs yet" in done.stdout
    assert len(done.stdout.splitlines()) <= 40


def test_commands_connect_by_the_parts_of_the_address(db: Connection, dsn: str) -> None:
    parts = conninfo_to_dict(dsn)
    environment = {
        "DB_HOST": str(parts["host"]),
        "DB_PORT": str(parts.get("port", "")),
        "DB_NAME": str(parts["dbname"]),
        "DB_USERNAME": str(parts["user"]),
        "DB_PASSWORD": str(parts["password"]),
    }
    ran = Commands(environment).run("status", "--json", DATABASE_URL="")
    assert ran.code == 0, ran.stderr
    assert ran.report["streams"]
    refused = Commands(environment).run("status", DATABASE_URL="", DB_NAME="nowhere-at-all")
    assert refused.code == 2
    assert environment["DB_PASSWORD"] not in refused.stderr


def test_status_counts_as_due_what_the_searches_take_in(db: Connection, dsn: str) -> None:
    row = add_release(db)
    db.execute(
        "INSERT INTO listener.ledger (library_id, question, ask_order, outcome, next_ask_at)"
        " VALUES (%s, '', 1, 'unresolved', now())",
        (row,),
    )
    for taken_in, due in (("true", 1), ("false", 0)):
        done = look(dsn, "status", INCLUDE_NULL_CANONICAL=taken_in)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"; {due} due now" in done.stdout


LML_TROUBLE = ("lml_trouble", "lml_trouble_since", "lml_next_try")


def test_keys_of_the_status_are_stable(db: Connection, dsn: str) -> None:
    add_release(db)
    db.execute("INSERT INTO listener.run (kind, cause, holder) VALUES ('audit', 'x', 'listener a')")
    db.execute("INSERT INTO listener.slot VALUES ('audit', now(), now(), 'listener a', true)")
    done = look(dsn, "status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    status = json.loads(done.stdout)
    stream = ("stream", "backlog", "oldest_seconds", "holder", "holder_alive", "breaker", "fault")
    beat = ("held_since", "stalled_seconds", "woken")
    latest = ("kind", "started_at", "outcome", "reason", "succeeded_at")
    rotation = ("active", "with_discogs_id", "with_identity", "resolved", "coverage", "identities")
    counts = ("rows", "nameless", "asked", "resolved", "unresolved", "compilation")
    ages = ("0-1", "1-2", "2-3", "3-4", "4-5", "5-6", "6-7", "7+")
    run = ("run_id", "kind", "cause", "holder", "started_at", "ended_at", "outcome", "reason")
    assert keys(status) == {
        "wellness": {"word": None, "why": [dict.fromkeys(("cause", "words"))]},
        "at": None,
        "installed_at": None,
        "database": None,
        "missing": None,
        "capture_missed": None,
        "streams": [dict.fromkeys((*stream, *beat, *LML_TROUBLE))],
        "replicas": None,
        "coverage": dict.fromkeys((*counts, "visited", "failed", "parked", "never")),
        "staleness_days": dict.fromkeys(ages),
        "due_by_time": None,
        "due": dict.fromkeys(("never", "resolved", "unresolved", "failed")),
        "rotation": dict.fromkeys((*rotation, "warmed_24h", "coldest")),
        "runs": [dict.fromkeys(run) | {"tally": {}}],
        "latest_runs": [dict.fromkeys(latest)],
        "slots": [dict.fromkeys(("job", "slot", "next_at", "done", "holder"))],
    }
    assert status["runs"][0]["outcome"] == "lost"
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00"
    assert re.fullmatch(moment, status["at"])
    assert re.fullmatch(moment, status["runs"][0]["started_at"])


def test_daemon_at_work_is_seen(db: Connection, dsn: str, start: Start) -> None:
    row = add_release(db)
    daemon = start().following()

    eventually(lambda: outbox_size(db) == 0)
    seen = json.loads(look(dsn, "status", "--json").stdout)
    assert seen["coverage"]["resolved"] == 1
    (holder,) = seen["replicas"]
    assert re.fullmatch(rf"listener \S+ \S+\[{daemon.process.pid}\] [0-9a-f]{{8}}", holder)
    assert daemon.events[0]["event"] == "starting"
    assert daemon.events[0]["pid"] == daemon.process.pid
    assert daemon.events[0]["database"] == db.info.dbname
    assert [(s["holder"], s["holder_alive"], s["backlog"]) for s in seen["streams"]] == [
        (holder, True, 0),
        (holder, True, 0),
    ]
    story = look(dsn, "why", str(row))
    assert story.returncode == 0
    assert f"none in the outbox; {holder} follows the library" in story.stdout
    assert ": resolved" in story.stdout
    assert daemon.stop() == 0
    assert '"replicas": []' in look(dsn, "status", "--json").stdout


@pytest.mark.parametrize("arguments", [("status",), ("status", "--watch"), ("why", "1")])
def test_failed_look_is_explained(db: Connection, dsn: str, arguments: tuple[str, ...]) -> None:
    unreachable = look(with_database(dsn, "no_such_database"), *arguments)
    assert unreachable.returncode == 2
    assert unreachable.stderr.startswith("listener: ")
    assert "Traceback" not in unreachable.stderr
    db.execute("DROP SCHEMA listener CASCADE")
    bare = look(dsn, *arguments)
    assert (bare.returncode, bare.stdout) == (2, "")
    assert "run `listener migrate`" in bare.stderr


def test_watch_prints_again_into_a_pipe(db: Connection, dsn: str) -> None:
    with watching(dsn) as watched:
        watched.shows("listener on ", 1)
        add_release(db)
        eventually(lambda: re.search(r"library +1 ", watched.text) is not None)
        watched.shows("nothing scheduled yet", 2)
        code, said = watched.interrupt()
    assert (code, said) == (130, "")
    assert "\x1b" not in watched.text
    backlogs = re.findall(r"library +(\d)", watched.text)
    assert (backlogs[0], backlogs[-1]) == ("0", "1")


def test_watch_prints_one_object_a_line(db: Connection, dsn: str) -> None:
    with watching(dsn, "--json") as watched:
        watched.shows("\n", 1)
        add_release(db)
        eventually(lambda: '"rows": 1,' in watched.text)
        code, said = watched.interrupt()
    assert (code, said) == (130, "")
    rows = [json.loads(line)["coverage"]["rows"] for line in watched.text.splitlines()]
    assert (rows[0], rows[-1]) == (0, 1)


@pytest.mark.parametrize("plain", [True, False])
def test_watch_stays_in_place_on_a_terminal(dsn: str, plain: bool) -> None:
    with watching(dsn, terminal=True, **({"NO_COLOR": "1"} if plain else {})) as watched:
        watched.shows("nothing scheduled yet", 2)
        code, said = watched.interrupt()
    assert (code, said) == (130, "")
    assert _UP.search(watched.text)
    coloured = {code for code in _COLOUR.findall(watched.text) if re.search(r"[349]\d", code)}
    assert bool(coloured) != plain
    # The cursor is there again.
    assert watched.text.rindex("\x1b[?25h") > watched.text.rindex("\x1b[?25l")


def test_short_terminal_shows_the_latest_runs(db: Connection, dsn: str) -> None:
    for job in ("audit", "sweep", "rotation"):
        db.execute(
            "INSERT INTO listener.slot VALUES (%s, now(), now(), 'listener a', true)", (job,)
        )
    db.execute(
        "INSERT INTO listener.run (kind, cause, holder, started_at, outcome, reason)"
        " SELECT 'sweep', 'schedule', 'listener a', now() - n * interval '1 h', 'failed', 'x' || n"
        " FROM generate_series(1, 10) AS n"
    )
    with watching(dsn, terminal=True, COLUMNS="80", LINES="24", NO_COLOR="1") as watched:
        watched.shows("last failure: sweep, started 60 min ago: x1", 1)
        watched.shows("2 h ago", 1)
        watched.interrupt()


@pytest.mark.parametrize("terminal", [True, False])
def test_watch_survives_an_unreachable_database(
    db: Connection, dsn: str, owner_dsn: str, terminal: bool
) -> None:
    with watching(dsn, terminal=terminal, NO_COLOR="1") as watched:
        watched.shows("no runs yet", 1)
        with refusing_connections(owner_dsn):
            if terminal:
                watched.shows("cannot read the status, retrying", 1)
            else:
                assert "cannot read the status, retrying" in watched.complaint()
        add_release(db)
        eventually(lambda: re.search(r"library +1 ", watched.text) is not None, WAIT_SECONDS)
        code, _ = watched.interrupt()
    assert code == 130


def test_exit_code_of_why_says_whether_the_row_is_there(db: Connection, dsn: str) -> None:
    row = add_release(db, "Stereolab", "Dots and Loops", "Za")
    there = look(dsn, "why", str(row))
    assert (there.returncode, there.stderr) == (0, "")
    assert "artist    Stereolab\ntitle     Dots and Loops\nletters   Za\n" in there.stdout
    gone = look(dsn, "why", str(row + 1))
    assert (gone.returncode, gone.stderr) == (1, "")
    assert "no such row" in gone.stdout
    assert look(dsn, "why", "many").returncode == 1
    wrong = look(dsn, "history", "many")
    assert wrong.returncode == 2
    assert "'many' is not a row id (a whole number)" in wrong.stderr


def test_keys_of_the_story_are_stable(db: Connection, dsn: str) -> None:
    row = add_release(db)
    db.execute("DELETE FROM listener.change")
    empty = json.loads(look(dsn, "why", str(row), "--json").stdout)
    assert (empty["answer"], empty["identity"], empty["sources"]) == (None, None, [])
    db.execute(
        "INSERT INTO listener.ledger"
        " (library_id, question, ask_order, next_ask_at, failures, parked)"
        " VALUES (%s, '', 1, now() + interval '7 days', 1, true)",
        (row,),
    )
    db.execute(
        "INSERT INTO wxyc_schema.library_identity"
        " (library_id, method, confidence, last_verified_at) VALUES (%s, 'manual', 1, now())",
        (row,),
    )
    db.execute(
        "INSERT INTO wxyc_schema.library_identity_source"
        " (library_id, source, external_id, method, confidence, last_verified_at)"
        " VALUES (%s, 'discogs', 'd-1', 'manual', 1, now())",
        (row,),
    )
    db.execute(
        "INSERT INTO wxyc_schema.library_identity_history"
        " (library_id, method, confidence, last_verified_at, superseded_reason)"
        " VALUES (%s, 'llm', 0.5, now(), 'verdict_changed')",
        (row,),
    )
    done = look(dsn, "why", str(row), "--json")
    assert done.returncode == 0
    standing = ("method", "confidence", "last_verified_at", "ours", "kept")
    waiting = ("waiting", "first_at", "last_at", "holder", "holder_alive")
    answer = ("outcome", "tracks", "answered_at", "same_question", "failures", "failure")
    assert keys(json.loads(done.stdout)) == {
        "at": None,
        "library_id": None,
        "release": dict.fromkeys(("artist_name", "album_title", "code_volume_letters")),
        "changes": dict.fromkeys((*waiting, *LML_TROUBLE)),
        "answer": dict.fromkeys((*answer, "failure_detail", "failed_at", "parked", "next_ask_at")),
        "identity": dict.fromkeys((*standing, "wikidata_qid", "spotify_id", "apple_music_id")),
        "sources": [dict.fromkeys((*standing, "source", "external_id"))],
        "history": [dict.fromkeys(STATE)],
        "next_asking": dict.fromkeys(("job", "reason", "due_at", "due", "next_at")),
    }
    missing = look(dsn, "why", str(row + 1), "--json")
    assert missing.returncode == 1
    assert json.loads(missing.stdout)["release"] is None
