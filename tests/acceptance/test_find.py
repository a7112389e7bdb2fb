"""The command that finds releases, as a person runs it."""

from __future__ import annotations

import json

import pytest

from tests.acceptance.conftest import Commands
from tests.catalogue import add_release
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(60)


def test_releases_are_listed_and_counted_by_the_exit_code(
    db: Connection, listener: Commands
) -> None:
    row = add_release(db, "Björk", "Post")
    ran = listener.run("find", "bjork", "post")
    assert (ran.code, ran.stderr) == (0, "")
    header, line = ran.stdout.splitlines()
    assert header.split() == ["id", "last", "answer", "next", "artist", "title"]
    assert line.split() == [str(row), "none", "yet", "waiting", "Björk", "Post"]

    (as_json,) = json.loads(listener.run("find", "BJÖRK", "--json").stdout)
    assert (as_json["library_id"], as_json["artist_name"]) == (row, "Björk")

    nothing = listener.run("find", "autechre")
    assert (nothing.code, nothing.stdout) == (1, "")
    assert nothing.stderr == "no release contains all of these words\n"
    assert json.loads(listener.run("find", "autechre", "--json").stdout) == []


def test_story_is_found_by_words_or_the_candidates_are_listed(
    db: Connection, listener: Commands
) -> None:
    post = add_release(db, "Björk", "Post")
    live = add_release(db, "Björk", "Post Live")
    story = listener.run("why", "bjork", "live")
    assert story.code == 0
    assert story.stdout.splitlines()[0].split() == ["row", str(live), "of", "the", "library"]

    several = listener.run("why", "bjork", "post")
    assert several.code == 1
    assert [line.split()[0] for line in several.stdout.splitlines()[1:]] == [str(post), str(live)]
    assert several.stderr == "several releases match; give more words, or an id\n"

    assert listener.run("why", "autechre").code == 1
    beyond = listener.run("why", str(2**31))
    assert beyond.code == 2
    assert "'2147483648' is not a row id" in beyond.stderr


def test_more_matches_than_the_limit_are_mentioned(db: Connection, listener: Commands) -> None:
    for title in ("Post", "Debut"):
        add_release(db, "Björk", title)
    hint = "more may match: give more words, or a higher --limit"
    assert listener.run("find", "bjork", "--limit", "1").stdout.splitlines()[2:] == [hint]
    assert hint not in listener.run("find", "bjork").stdout


def test_text_of_a_release_cannot_control_the_terminal(db: Connection, listener: Commands) -> None:
    add_release(db, "\x1b[31mRed", "Alert\x07")
    ran = listener.run("find", "alert")
    assert ran.code == 0
    assert "\x1b" not in ran.stdout
    assert "\x07" not in ran.stdout
