"""A server that goes and comes back: nobody waits for what the daemon thinks of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from listener.demo.postgres import create_backend, embedded_postgres
from listener.simulator import Simulator
from tests.acceptance.conftest import LML_KEY, Daemon, eventually
from tests.catalogue import add_release, table
from tests.conftest import BACKEND
from tests.database import migrate

pytestmark = pytest.mark.timeout(120)

# By then every delay has grown to what it may be at most.
AWAY = 12


def test_daemon_continues_as_soon_as_the_server_is_back(
    tmp_path: Path, simulator: Simulator, lml: str
) -> None:
    with embedded_postgres(tmp_path / "pg") as dsn:
        create_backend(dsn, BACKEND, with_triggers=False)
        migrate(dsn, BACKEND)
        daemon = Daemon(
            {
                "DATABASE_URL": dsn,
                "LIBRARY_METADATA_URL": lml,
                "LML_API_KEY": LML_KEY,
                "HTTP_BIND": "",
            }
        )
        daemon.following()
    threading.Event().wait(AWAY)
    with embedded_postgres(tmp_path / "pg") as dsn, psycopg.connect(dsn, autocommit=True) as db:
        began = time.monotonic()
        row = add_release(db)
        answered = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE library_id = %s)").format(
            table("library_identity")
        )
        eventually(lambda: db.execute(answered, (row,)).fetchone() == (True,))
        # Probed every 2 s at least; the rest is what a busy machine takes.
        assert time.monotonic() - began < 8
        assert not daemon.logged("standing by")
        assert daemon.stop() == 0
