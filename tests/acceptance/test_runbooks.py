"""Every command of the runbooks that can be tried is tried; every link leads somewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from listener.adapters.postgres.installation import uninstall
from listener.demo.stage import program
from tests.acceptance.conftest import LML_KEY
from tests.acceptance.test_parked import park
from tests.catalogue import add_identity, table
from tests.conftest import BACKEND, Connection
from tests.database import on
from tests.runbooks import (
    ROOT,
    RUNBOOKS,
    alert_runbooks,
    all_runbooks,
    blocks_of,
    languages_of,
    links_of,
    opening_of,
    script_of,
)

pytestmark = pytest.mark.timeout(120)

# These begin where nothing is installed yet.
FROM_NOTHING = {"install.md"}
TRIED = [path for path in all_runbooks() if list(blocks_of(path))]
LANGUAGES = {"sh", "yaml", "text", "json", "ini"}


def name_of(path: Path) -> str:
    return str(path.relative_to(RUNBOOKS))


@pytest.fixture
def furnished(db: Connection) -> None:
    """Add releases: two are parked, one is in rotation, a person made the identity of one.

    Our session stands for the daemon that doctor looks for.
    """
    db.execute(
        "UPDATE listener.lane SET holder = 'listener test', held_since = now(), woken = true,"
        " breaker = 'closed', holder_pid = pg_backend_pid(), holder_started ="
        " (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())"
    )
    db.execute(
        sql.SQL(
            "INSERT INTO {} (id, artist_name) SELECT n, 'Artist' FROM generate_series(1, 9) AS n"
        ).format(table("artists"))
    )
    db.execute(
        sql.SQL(
            "INSERT INTO {} (id, artist_id, artist_name, album_title, canonical_entity_id)"
            " SELECT 4707 + n, n, 'Artist ' || n, 'Album ' || n, CASE WHEN n < 4 THEN 'x' END"
            " FROM generate_series(1, 9) AS n"
        ).format(table("library"))
    )
    db.execute(
        sql.SQL(
            "INSERT INTO {} (album_id, rotation_bin, discogs_release_id, lml_identity_id)"
            " VALUES (4709, 'H', 12345, 7)"
        ).format(table("rotation"))
    )
    for row in (4711, 4712):
        park(db, row)
    add_identity(db, 4713, method="manual")


@pytest.fixture
def scratch(owner_dsn: str, dsn: str, lml: str, role: str, furnished: None) -> dict[str, str]:
    """Return what stands for the addresses that the runbooks have as examples."""
    return {
        "postgresql://owner@db.example/backend": owner_dsn,
        "postgresql://listener_daemon@db.example/backend": dsn,
        "https://lml.example": lml,
        "LML_API_KEY=...": f"LML_API_KEY={LML_KEY}",
        "listener_daemon": role,
    }


@pytest.mark.parametrize("path", TRIED, ids=name_of)
def test_commands_do_what_the_runbook_says(
    path: Path, scratch: dict[str, str], owner_dsn: str, dsn: str, tmp_path: Path
) -> None:
    if path.name in FROM_NOTHING:
        with psycopg.connect(owner_dsn, autocommit=True) as owner:
            on(owner, uninstall, BACKEND)
    # As in a checkout, but what is written stays outside of it.
    for name in ("runbooks", "deploy"):
        (tmp_path / name).symlink_to(ROOT / name)
    tools = os.pathsep.join(map(str, (Path(sys.executable).parent, program("psql").parent)))
    done = subprocess.run(
        ["bash", "-c", script_of(path, scratch)],
        env={
            "PATH": f"{tools}{os.pathsep}{os.defpath}",
            "OWNER_URL": owner_dsn,
            "DATABASE_URL": dsn,
            "LIBRARY_METADATA_URL": scratch["https://lml.example"],
            "LML_API_KEY": LML_KEY,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, said
    assert "Traceback" not in said
    assert "command not found" not in said


@pytest.mark.parametrize("path", all_runbooks(), ids=name_of)
def test_every_block_has_a_description(path: Path) -> None:
    assert {words.split()[0] for words in languages_of(path) if words} <= LANGUAGES
    assert all(languages_of(path)), "```sh is tried, ```sh no-run and ```text are not"


@pytest.mark.parametrize("path", [*all_runbooks(), ROOT / "README.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    missing = [link for link in links_of(path) if not (path.parent / link).exists()]
    assert not missing


def test_every_alert_runbook_starts_with_how_to_read_the_log() -> None:
    (opening,) = {opening_of(path) for path in alert_runbooks()}
    for command in ("journalctl -u listener ", "docker logs ", "kubectl -n listener logs "):
        assert f"\n{command}" in opening


def test_every_runbook_is_in_the_list_of_the_readme() -> None:
    linked = set(links_of(ROOT / "README.md")) | {
        f"runbooks/{link}" for link in links_of(RUNBOOKS / "README.md")
    }
    names = {f"runbooks/{name_of(path)}" for path in all_runbooks()} - {"runbooks/README.md"}
    assert names <= linked
