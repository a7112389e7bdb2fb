"""Readings, samples and what is made of them later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from pydantic import SecretStr

from listener.adapters.postgres import viewer as viewers
from listener.adapters.postgres.connection import Database, Pool, open_session
from listener.adapters.postgres.outbox import LaneTimes, PostgresLanes, PostgresOutbox
from listener.adapters.postgres.samples import PostgresSamples, read_steps, read_streams
from listener.adapters.postgres.sessions import Connection as Session
from listener.adapters.postgres.sessions import only_row, query
from listener.adapters.postgres.status import read_status
from listener.adapters.postgres.viewer import Viewer, open_viewer
from listener.app.page import Page
from listener.domain.change import Batch, BatchOutcome, Stream
from listener.domain.faults import StoreUnavailableError, first_of
from listener.domain.health import unready
from listener.domain.pulse import LaneReport, Reading, Sample, StreamReading, WakeMode
from listener.domain.room import RoomLimits
from listener.engine.circuit import Circuit
from listener.engine.consumer import Consumer
from listener.engine.tenure import ConsumerLimits
from listener.settings import StatusSettings
from tests.catalogue import add_release
from tests.conftest import BACKEND, Connection
from tests.database import look, on
from tests.integration.conftest import Answers, nodes_of, until
from tests.integration.proxy import proxy_before

MINUTE = timedelta(minutes=1)
SAMPLE = Sample(
    stream=Stream.LIBRARY,
    lasted=timedelta(seconds=10),
    backlog=4,
    oldest=timedelta(seconds=3),
    claimed=6,
    settled=5,
    typical=timedelta(seconds=0.5),
    worst=timedelta(seconds=2),
    silent=timedelta(0),
    woken=True,
)


def enter(db: Connection, minutes: float, *, stream: str = "library", **values: object) -> None:
    """Write a sample of `minutes` ago."""
    row: dict[str, object] = {
        "seconds": 10,
        "backlog": 0,
        "claimed": 1,
        "settled": 1,
        "typical": 1,
        "worst": 1,
        "silent": 0,
        "woken": True,
    }
    row |= values
    names = ", ".join(row)
    places = ", ".join(f"%({name})s" for name in row)
    db.execute(
        f"INSERT INTO listener.sample (stream, at, {names})"  # noqa: S608
        f" VALUES (%(stream)s, now() - %(age)s, {places})",
        row | {"stream": stream, "age": timedelta(minutes=minutes)},
    )


Read = Callable[[], Awaitable[Reading]]


@pytest.fixture
def reading(pool: Pool) -> Read:
    return partial(read_streams, pool, BACKEND, "listener test", MINUTE)


@pytest.fixture
def samples(pool: Pool) -> PostgresSamples:
    return PostgresSamples(pool, BACKEND)


async def test_reading_shows_what_waits(db: Connection, reading: Read) -> None:
    rows = [add_release(db) for _ in range(3)]
    db.execute(
        "UPDATE listener.change SET changed_at = now() - interval '90 s' WHERE row_id = %s",
        (rows[0],),
    )
    library, rotation = (await reading()).waiting
    assert (library.stream, library.backlog, library.followed) == (Stream.LIBRARY, 3, False)
    assert library.oldest is not None
    assert timedelta(seconds=90) <= library.oldest < timedelta(seconds=100)
    assert rotation == StreamReading(Stream.ROTATION, 0, None, followed=False)


async def test_another_daemon_counts_as_following_and_we_do_not(
    dsn: str, database: Database, reading: Read
) -> None:
    async with PostgresLanes(database, LaneTimes()).hold(Stream.LIBRARY):
        assert [each.followed for each in (await reading()).waiting] == [False, False]
    other = Database(dsn=dsn, backend=BACKEND, holder="listener other")
    async with PostgresLanes(other, LaneTimes()).hold(Stream.LIBRARY):
        assert [each.followed for each in (await reading()).waiting] == [True, False]
    assert [each.followed for each in (await reading()).waiting] == [False, False]


async def test_parked_rows_are_counted(db: Connection, reading: Read) -> None:
    parked, failed, deleted = add_release(db), add_release(db), 4711
    for row, is_parked in ((parked, True), (failed, False), (deleted, True)):
        db.execute(
            "INSERT INTO listener.ledger (library_id, question, ask_order, failures, parked,"
            " next_ask_at) VALUES (%s, '', 1, 8, %s, now())",
            (row, is_parked),
        )
    seen = await reading()
    assert seen.parked == 1
    assert [each.retrying for each in seen.waiting] == [1, 0]


async def test_sample_is_stored_unchanged(
    db: Connection, samples: PostgresSamples, answer: Answers
) -> None:
    await answer(add_release(db), add_release(db))
    add_release(db)
    add_release(db, None)
    await samples.write(SAMPLE)
    coverage = await samples.count_coverage()
    assert coverage == (2, 0, 0, 0, 0, 1, 1)
    empty = Sample(
        stream=Stream.ROTATION,
        lasted=timedelta(seconds=10),
        backlog=0,
        oldest=None,
        claimed=0,
        settled=0,
        typical=None,
        worst=None,
        silent=timedelta(seconds=4),
        woken=False,
        coverage=coverage,
    )
    await samples.write(empty)
    steps = on(db, read_steps, BACKEND, timedelta(hours=1), timedelta(seconds=30))
    library, rotation = steps
    assert (library.backlog, library.oldest, library.settled, library.typical) == (4, 3, 5, 0.5)
    assert (library.worst, library.silent, library.coverage) == (2, 0, None)
    assert (rotation.oldest, rotation.typical, rotation.silent) == (None, None, 4)
    assert rotation.coverage == [2, 0, 0, 0, 0, 1, 1]


def test_history_is_reported_in_steps(db: Connection) -> None:
    base = datetime.now(UTC)
    # All within one step of ten minutes, whenever this is run.
    into = base.timestamp() % 600 / 60
    for part, settled, typical, worst in ((0.2, 3, 1.0, 9), (0.5, 1, 5.0, 5), (0.8, 0, None, None)):
        minutes = into + 10 * (1 - part)
        enter(db, minutes, settled=settled, typical=typical, worst=worst, backlog=settled, silent=2)
    enter(db, 25 * 60, settled=99)
    (step,) = on(db, read_steps, BACKEND, timedelta(days=1), timedelta(minutes=10))
    assert (step.settled, step.worst, step.backlog, step.silent) == (4, 9, 3, 6)
    assert step.typical == pytest.approx((3 * 1.0 + 1 * 5.0) / 4)
    assert step.at.timestamp() % 600 == 0


async def test_old_samples_are_merged_and_their_sums_preserved(
    db: Connection, samples: PostgresSamples
) -> None:
    # All at one time: every five minutes in between hold equally many.
    with db.transaction():
        for second in range(0, 3600, 10):
            enter(db, 180 + second / 60, settled=2, worst=second, coverage=[second, *[0] * 6])
    enter(db, 10, settled=1)
    enter(db, 180, stream="rotation", settled=7)
    enter(db, 9 * 24 * 60, settled=5)
    await samples.fold(Stream.LIBRARY)
    rows = db.execute(
        "SELECT count(*), min(seconds), sum(settled), max(worst)"
        " FROM listener.sample WHERE stream = 'library' AND at < now() - interval '2 h'"
    ).fetchone()
    assert rows is not None
    assert 12 <= int(str(rows[0])) <= 13
    assert rows[1:] == (300, 720, 3590)
    once = counts_at(db)
    counts = [count for _, count in once]
    # Of each five minutes the last count.
    assert counts == [0, *range(counts[1], 3600, 300)]
    await samples.fold(Stream.LIBRARY)
    assert counts_at(db) == once
    others = db.execute(
        "SELECT stream, settled, seconds FROM listener.sample"
        " WHERE stream = 'rotation' OR at > now() - interval '1 h' ORDER BY stream"
    ).fetchall()
    assert others == [("library", 1, 10), ("rotation", 7, 10)]


def counts_at(db: Connection) -> list[tuple[object, int]]:
    """Return the first number of each old coverage with its time, the latest first."""
    rows = db.execute(
        "SELECT at, coverage[1] FROM listener.sample"
        " WHERE stream = 'library' AND at < now() - interval '2 h' ORDER BY at DESC"
    ).fetchall()
    return [(at, int(str(count))) for at, count in rows]


async def test_folding_is_bounded_to_eight_days(db: Connection, samples: PostgresSamples) -> None:
    enter(db, 8 * 24 * 60 + 10, seconds=300)
    enter(db, 8 * 24 * 60 - 10, seconds=300)
    await samples.fold(Stream.LIBRARY)
    assert db.execute("SELECT count(*) FROM listener.sample").fetchone() == (1,)


async def test_viewer_outlives_its_session(db: Connection, dsn: str) -> None:
    async def backend(connection: Session, _schema: str) -> int:
        return connection.info.backend_pid

    async with open_viewer(dsn, BACKEND) as viewer:
        first = await viewer.look(backend)
        assert await viewer.look(backend) == first
        db.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))

        async def count(connection: Session, _schema: str) -> object:
            cursor = await connection.execute("SELECT count(*) FROM listener.lane")
            return await cursor.fetchone()

        assert await viewer.look(count) == (2,)
    left = "SELECT FROM pg_stat_activity WHERE application_name = 'listener-page'"
    await until(lambda: not db.execute(left).rowcount)


async def test_page_shows_what_the_database_holds(
    db: Connection, dsn: str, answer: Answers, database: Database
) -> None:
    await answer(add_release(db), add_release(db))
    parked = add_release(db)
    db.execute(
        "INSERT INTO listener.ledger (library_id, question, ask_order, failures, parked,"
        " next_ask_at, failure, failure_detail, failed_at, failing_since)"
        " VALUES (%s, '', 1, 8, true, now() + interval '7 d', 'lml_error', 'why', now(), now())",
        (parked,),
    )
    db.execute("TRUNCATE listener.change")
    async with open_viewer(dsn, BACKEND) as viewer:
        page = _page(viewer)
        alone = json.loads(await page.state())
        assert alone["wellness"]["word"] == "failing"
        unfollowed = {"cause": "unfollowed", "words": "no daemon follows library; start one"}
        assert alone["wellness"]["why"][0] == unfollowed
        async with (
            PostgresLanes(database, LaneTimes()).hold(Stream.LIBRARY) as library,
            PostgresLanes(database, LaneTimes()).hold(Stream.ROTATION) as rotation,
        ):
            await library.wait(timedelta(0))
            await rotation.wait(timedelta(0))
            state = json.loads(await page.state())
            assert state["wellness"] == {
                "word": "well",
                "why": [
                    {"cause": None, "words": "every change is answered"},
                    {"cause": None, "words": "1 row parked for a person to look at"},
                ],
            }
            assert json.loads(await page.status())["wellness"] == state["wellness"]
        assert state["status"]["coverage"]["resolved"] == 2
        assert [row["library_id"] for row in state["parked"]] == [parked]
        enter(db, 1)
        history = json.loads(await page.history())
        assert sum(history["hour"]["streams"]["library"]["settled"]) == 1
        assert json.loads(await page.status())["coverage"] == state["status"]["coverage"]


async def test_hanging_look_is_given_up_and_repeated(
    db: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def backend_of(connection: Session, _: str) -> int:
        return int((await only_row(await connection.execute("SELECT pg_backend_pid()")))[0])

    monkeypatch.setattr(viewers, "_LONGEST", timedelta(seconds=1))
    async with (
        proxy_before(dsn) as (behind, proxy),
        open_viewer(behind, BACKEND) as viewer,
    ):
        before = await viewer.look(backend_of)
        proxy.freeze()
        assert await viewer.look(backend_of) != before


async def test_page_and_status_show_why_a_lane_cannot_work(
    db: Connection, dsn: str, database: Database
) -> None:
    reason = "permission denied for table change"
    lanes = PostgresLanes(
        database,
        LaneTimes(),
        lambda stream: LaneReport(fault=reason if stream is Stream.LIBRARY else None),
    )
    add_release(db)
    async with open_viewer(dsn, BACKEND) as viewer:
        page = _page(viewer)
        async with lanes.hold(Stream.LIBRARY) as library, lanes.hold(Stream.ROTATION) as rotation:
            await library.wait(timedelta(0))
            await rotation.wait(timedelta(0))
            wellness = json.loads(await page.state())["wellness"]
            assert wellness == {
                "word": "failing",
                "why": [
                    {
                        "cause": "refused",
                        "words": f"the database refuses every change of library: {reason}",
                    },
                    {"cause": None, "words": "1 row not asked about yet"},
                ],
            }
        streams = json.loads(await page.status())["streams"]
        assert [stream["fault"] for stream in streams] == [reason, None]


async def test_daemon_whose_changes_are_all_refused_is_not_ready_and_reveals_no_more_to_a_probe(
    db: Connection, dsn: str, pool: Pool, outbox: PostgresOutbox, database: Database
) -> None:
    add_release(db)
    reason = "could not extend file base/1/2"

    async def refuse(_batch: Batch) -> BatchOutcome:
        return BatchOutcome(fault=StoreUnavailableError(reason))

    room = RoomLimits(capacity=10, batch_size=10, linger=timedelta(0), cool_down=timedelta(0))
    consumer = Consumer(
        Stream.LIBRARY,
        outbox,
        refuse,
        ConsumerLimits(room, 1, timedelta(seconds=5)),
        circuit=Circuit(Stream.LIBRARY),
    )
    lanes = PostgresLanes(
        database,
        LaneTimes(),
        lambda stream: LaneReport(fault=consumer.fault if stream == "library" else None),
    )

    async def follow() -> None:
        async with (
            lanes.hold(Stream.LIBRARY) as lane,
            lanes.hold(Stream.ROTATION),
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(consumer.follow(lane, asyncio.Event()))
            await until(lambda: consumer.fault and lane.wake_mode is not WakeMode.DOWN)
            pulse = consumer.pulse()
            assert pulse is not None
            rotation = StreamReading(Stream.ROTATION, 0, None, followed=True)
            seen = await read_streams(pool, BACKEND, database.holder, MINUTE)
            reading = Reading((seen.waiting[0], rotation), 0, timedelta(0))
            reasons = unready(reading, [pulse], timedelta(minutes=5))
            assert reasons == ["the database refuses every change of library"]

    # Once it was refused a few times it gives the lane up, and says why.
    with pytest.raises(ExceptionGroup) as group:
        await follow()
    assert isinstance(first_of(group.value), StoreUnavailableError)
    library, rotation = look(dsn, BACKEND, read_status).streams
    assert (library.holder, library.fault) == (None, reason)
    assert (rotation.holder, rotation.fault) == (None, None)


async def test_page_reports_a_missing_database(dsn: str) -> None:
    async with open_viewer(dsn.replace("dbname", "x").rsplit("/", 1)[0] + "/gone", BACKEND) as v:
        page = _page(v)
        state = json.loads(await page.state())
        assert (state["status"], state["wellness"]["word"]) == (None, "failing")
        (why,) = state["wellness"]["why"]
        assert why["cause"] == "unreadable"
        assert why["words"].startswith("cannot read the database: ")
        with pytest.raises(StoreUnavailableError):
            await page.status()


def _page(viewer: Viewer) -> Page:
    return Page(viewer, StatusSettings(database_url=SecretStr("postgresql://db/x")))


async def test_reading_looks_at_the_head_of_the_outbox_and_at_what_is_parked(
    db: Connection, database: Database
) -> None:
    add_release(db)
    db.execute(
        "INSERT INTO listener.change (stream, row_id) SELECT 'library', n"
        " FROM generate_series(1000, 40999) AS n"
    )
    db.execute(
        "INSERT INTO listener.ledger (library_id, question, ask_order, next_ask_at)"
        " SELECT n, '', 1, now() FROM generate_series(1, 40000) AS n"
    )
    db.execute("ANALYZE listener.change, listener.ledger")
    async with await open_session(database) as connection:
        parameters = {"holder": "x", "window": timedelta(minutes=1)}
        explain = b"EXPLAIN (ANALYZE, FORMAT JSON) " + query("read_backlog", BACKEND)
        rows = await (await connection.execute(explain, parameters)).fetchall()
    nodes = list(nodes_of(rows[0][0][0]["Plan"]))
    (head,) = (node for node in nodes if node["Node Type"] == "Limit")
    others = [node for node in nodes if node.get("Relation Name") not in {None, "change"}]
    # To count is to read every change; all else is found by key.
    for node in (*nodes_of(head), *others):
        assert node["Actual Rows"] + node.get("Rows Removed by Filter", 0) <= 10, node
