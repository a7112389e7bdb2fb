"""What the doctor sees of a database, directly and through a pooler."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from psycopg import sql

from listener import shipped
from listener.adapters.postgres.examination import (
    examining,
    read_missing,
    read_refused,
    read_rights,
    read_server,
    try_wakeups,
)
from listener.domain.database import (
    Rights,
    Server,
    WakeupTrial,
    judge_rights,
    judge_server,
    judge_wakeups,
)
from listener.domain.faults import StoreUnavailableError
from listener.domain.finding import State
from tests.catalogue import table
from tests.conftest import BACKEND, Connection, as_role
from tests.poolers import pooler

SERVER = Server(
    version=140022,
    version_name="14.22",
    standby=False,
    read_only=False,
    database="backend",
    encoding="UTF8",
    role="listener_daemon",
    deadlock_timeout=timedelta(seconds=1),
    clock_ahead=timedelta(0),
)


async def test_every_statement_but_one_is_tested(dsn: str, db: Connection) -> None:
    async with examining(dsn) as connection:
        assert await read_refused(connection, BACKEND) == {}
    db.execute("ALTER SCHEMA listener RENAME TO elsewhere")
    async with examining(dsn) as connection:
        refused = {
            name for names in (await read_refused(connection, BACKEND)).values() for name in names
        }
    texts = {path.stem: path.read_text() for path in (shipped("sql") / "queries").glob("*.sql")}
    ours = {
        name for name, text in texts.items() if re.search(r"(FROM|INTO|UPDATE) listener[.]", text)
    }
    assert len(ours) > 50
    assert ours <= refused


def test_short_deadlock_timeout_is_warned_about() -> None:
    server = replace(SERVER, deadlock_timeout=timedelta(milliseconds=50))
    *_, finding = judge_server(server)
    assert (finding.check, finding.state) == ("deadlocks", State.WARN)
    assert finding.finding.startswith("deadlock_timeout is 0.05 s")
    assert "deadlock_timeout" in finding.advice


def test_encoding_that_cannot_hold_unicode_is_a_failure() -> None:
    finding, *_ = judge_server(replace(SERVER, encoding="SQL_ASCII"))
    assert finding.state is State.FAIL
    assert "is encoded in SQL_ASCII, which cannot hold every name" in finding.finding
    assert "UTF8" in finding.advice


async def rights(dsn: str, backend: str = BACKEND) -> Rights:
    async with examining(dsn) as connection:
        return await read_rights(connection, backend)


async def test_server_is_reported_with_its_clock(dsn: str) -> None:
    async with examining(dsn) as connection:
        server = await read_server(connection, BACKEND)
        assert server.version == connection.info.server_version
    assert not server.standby
    assert not server.read_only
    assert abs(server.clock_ahead) < timedelta(seconds=2)


async def test_examination_cannot_write(dsn: str) -> None:
    with pytest.raises(StoreUnavailableError, match="read-only"):
        async with examining(dsn) as connection:
            await connection.execute("DELETE FROM listener.change")


async def test_wrong_schema_of_the_backend_is_named(dsn: str) -> None:
    seen = await rights(dsn, "no_such_schema")
    assert "schema no_such_schema" in seen.absent
    assert "no_such_schema.library" in seen.absent
    (finding,) = judge_rights(seen)
    assert finding.state is State.FAIL
    assert "WXYC_SCHEMA_NAME" in finding.advice


async def test_schema_without_usage_spoils_no_other_check(
    db: Connection, dsn: str, role: str
) -> None:
    db.execute(sql.SQL("REVOKE USAGE ON SCHEMA listener FROM {}").format(sql.Identifier(role)))
    async with examining(as_role(dsn, role)) as connection:
        with pytest.raises(StoreUnavailableError, match="permission denied"):
            await read_missing(connection, BACKEND)
        assert (await read_rights(connection, BACKEND)).lacking == ("USAGE on schema listener",)


async def test_parts_are_reported_separately(db: Connection, dsn: str) -> None:
    async with examining(dsn) as connection:
        assert await read_missing(connection, BACKEND) == ([], [], [])
    db.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(table("rotation")))
    db.execute("DELETE FROM listener.installed WHERE name LIKE 'schema/0002%'")
    async with examining(dsn) as connection:
        schema, triggers, _ = await read_missing(connection, BACKEND)
    assert [name.partition("_")[0] for name in schema] == ["schema/0002"]
    assert triggers == ["triggers/rotation"]


@pytest.mark.parametrize(
    ("version", "state"),
    [
        (130_022, State.FAIL),
        (140_020, State.WARN),
        (140_021, State.OK),
        (140_022, State.OK),
        (150_015, State.WARN),
        (150_016, State.OK),
        (160_011, State.WARN),
        (160_012, State.OK),
        (170_007, State.WARN),
        (170_008, State.OK),
        (180_001, State.WARN),
        (180_002, State.OK),
        (190_000, State.WARN),
    ],
)
def test_version_is_judged(version: int, state: State) -> None:
    _, finding, *_ = judge_server(replace(SERVER, version=version, version_name="some"))
    assert (finding.check, finding.state) == ("server version", state)
    assert bool(finding.advice) == (state is not State.OK)


@pytest.mark.parametrize(
    ("seconds", "state", "words"),
    [
        (0.4, State.OK, "0.4 s ahead of"),
        (-1.9, State.OK, "1.9 s behind"),
        (2.1, State.WARN, "2.1 s ahead of"),
        (-3600, State.WARN, "3600.0 s behind"),
    ],
)
def test_clock_is_judged(seconds: float, state: State, words: str) -> None:
    ahead = timedelta(seconds=seconds)
    _, _, finding, _ = judge_server(replace(SERVER, clock_ahead=ahead))
    assert (finding.check, finding.state) == ("clock", state)
    assert words in finding.finding


def test_standby_database_is_refused() -> None:
    finding = next(judge_server(replace(SERVER, standby=True)))
    assert (finding.check, finding.state) == ("database", State.FAIL)


async def test_wakeups_arrive_on_a_direct_connection(dsn: str) -> None:
    wakeups = await try_wakeups(dsn)
    assert wakeups == WakeupTrial(from_itself=True, from_another=True, same_backend=True)
    assert judge_wakeups(wakeups).state is State.OK


async def test_pooler_that_gives_each_statement_another_backend_is_found(dsn: str) -> None:
    async with pooler(dsn) as pooled:
        wakeups = await try_wakeups(pooled)
    assert not wakeups.from_another
    assert not wakeups.same_backend
    finding = judge_wakeups(wakeups)
    assert finding.state is State.FAIL
    assert "a pooler shares our session" in finding.finding
    assert "session mode" in finding.advice


async def test_refused_listen_is_reported(dsn: str) -> None:
    with pytest.raises(StoreUnavailableError, match="not_there"):
        await try_wakeups(urlsplit(dsn)._replace(path="/not_there").geturl())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:gehe%zim@localhost:1/x",
        "postgresql://u:ge@heim@localhost:1/x",
        "postgresql://u:geheim/geheim@localhost:1/x",
        "postgresql://u:geheim@localhost:port/x",
        "postgresql://u:geheim@localhost:1/x?nonsense=geheim",
        "postgresql://localhost:1/x?password=geheim&port=geheim",
        "postgresql://u:geheim@geheim.invalid:1/x",
    ],
)
async def test_failure_to_connect_shows_nothing_of_the_password(url: str) -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        async with examining(url):
            pass
    assert "heim" not in str(caught.value)
    assert "zim" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_failure_to_connect_names_the_address() -> None:
    with pytest.raises(StoreUnavailableError, match="port 1 failed"):
        async with examining("postgresql://u:geheim@127.0.0.1:1/x"):
            pass


async def test_wrong_password_is_reported(dsn: str) -> None:
    with pytest.raises(StoreUnavailableError, match="nobody_of_that_name"):
        async with examining(as_role(dsn, "nobody_of_that_name")):
            pass


async def test_lost_connection_is_reported(dsn: str, db: Connection) -> None:
    with pytest.raises(StoreUnavailableError):
        async with examining(dsn) as connection:
            db.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))


async def test_check_on_a_lost_connection_is_reported(dsn: str, db: Connection) -> None:
    with suppress(StoreUnavailableError):
        async with examining(dsn) as connection:
            db.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
            with pytest.raises(StoreUnavailableError):
                await read_server(connection, BACKEND)
