"""What the test of the whole loop is made of: hurried time, a scripted LML, daemons, a backend."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, LiteralString, NamedTuple
from zlib import crc32

import httpx
import psycopg
from pydantic import AnyHttpUrl, SecretStr

from listener.adapters.lml.client import LmlClient, LmlLimits
from listener.adapters.postgres.connection import Database, open_pool
from listener.adapters.postgres.outbox import LaneTimes, PostgresLanes
from listener.adapters.postgres.store import Store
from listener.app.parts import Parts
from listener.app.streams import LibraryParts
from listener.domain.change import Stream
from listener.domain.due import AskAgain, RunKind
from listener.domain.faults import StoreUnavailableError
from listener.domain.pacing import Backoff
from listener.domain.pulse import LaneReport
from listener.engine.circuit import Circuit, Permits
from listener.engine.consumer import Consumer
from listener.engine.reconciler import RunHaltedError
from listener.engine.supervisor import Supervisor
from listener.settings import Settings
from tests.conftest import BACKEND

# So many seconds of the loop last one second: pauses are short, statements take their time.
PACE = 20
_BATCH_SIZE, _CALLS = 3, 2
# Of a waiting room: batches being handled, beside the calls, and waiting to be.
CAPACITY = _BATCH_SIZE * (_CALLS + 3 + 4)
MAX_ATTEMPTS = 3
_LML = "http://lml.test/api/v1/"
_SILENCE = Backoff(first=timedelta(seconds=1), most=timedelta(seconds=3))

OUTAGES = ("503", "401")
INTERRUPTIONS = ("502", "reset", "truncated")
REFUSALS = ("422", "413", "500", "no results")
ODD_RESULTS = ("kind", "sources", "NaN", "1.7", "missing", "foreign", "contradiction")


class _Hurrying(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / PACE)


class HurryingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(_Hurrying())

    def time(self) -> float:
        return super().time() * PACE


async def eventually(fact: Callable[[], object], seconds: float = 1.0) -> bool:
    """Let the loop run until a fact is true, for at most the given number of real seconds."""
    until = asyncio.get_running_loop().time() + seconds * PACE
    while not fact():
        if asyncio.get_running_loop().time() > until:
            return False
        await asyncio.sleep(0.002 * PACE)
    return True


def qid(artist: str, title: str) -> str | None:
    """Return what LML finds for a name; None if that is not a single artist."""
    if artist.startswith(("Nobody", "V/A")):
        return None
    return f"Q{crc32(f'{artist}/{title}'.encode())}"


class ScriptedLml:
    """Answers by name alone; misbehaves towards calls with a row of `faults`, under None with any.

    Calls wait while `gate` is closed. `asked` counts the questions put, by row; `unanswered` counts
    the calls that say something about LML, not about rows.
    """

    def __init__(self) -> None:
        self.faults: dict[int | None, str] = {}
        self.asked: Counter[int] = Counter()
        self.unanswered = self.in_flight = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(503 if None in self.faults else 200)
        inputs = json.loads(request.content)["inputs"]
        self.asked.update(each["library_id"] for each in inputs)
        self.in_flight += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.unanswered += 1
            raise
        finally:
            self.in_flight -= 1
        always = self.faults.get(None, "")
        faults = [always or self.faults.get(each["library_id"], "") for each in inputs]
        for fault in faults:
            self.unanswered += fault in {*OUTAGES, *INTERRUPTIONS}
            if fault == "reset":
                raise httpx.ReadError("cut", request=request)
            if fault in {"truncated", "no results"}:
                content = b'{"results": [{"libr' if fault == "truncated" else b'{"results": []}'
                return httpx.Response(200, content=content)
            if fault.isdecimal():
                return httpx.Response(int(fault), text="odd")
        results = [r for each, f in zip(inputs, faults, strict=True) for r in _results(each, f)]
        return httpx.Response(200, content=json.dumps({"results": results}))


def _results(asked: dict[str, Any], fault: str) -> list[dict[str, Any]]:
    row, artist = asked["library_id"], asked["artist_name"]
    found = qid(artist, asked["album_title"])
    evidence = {"source": "wikidata", "method": "llm", "confidence": 0.8, "external_id": found}
    sound: dict[str, Any] = {"library_id": row, "kind": "single_artist", "method": "exact_match"}
    sound |= {"main": {"wikidata_qid": found}, "confidence": 0.9, "provenance": [evidence]}
    if found is None:
        kind = "compilation" if artist.startswith("V/A") else "unresolved"
        sound = {"library_id": row, "kind": kind, "provenance": []}
    other = "compilation" if sound["kind"] == "unresolved" else "unresolved"
    odd: dict[str, list[dict[str, Any]]] = {
        "kind": [sound | {"kind": "duet"}],
        "sources": [sound | {"provenance": [evidence, evidence], "kind": "single_artist"}],
        "NaN": [sound | {"confidence": float("nan")}],
        "1.7": [sound | {"confidence": 1.7}],
        "missing": [],
        "foreign": [sound | {"library_id": row + 1_000_000}],
        "contradiction": [sound, sound | {"kind": other}],
    }
    return odd.get(fault, [sound])


class AgingCircuit(Circuit):
    """Holds the ledger's times, which are the server's and may be moved, against the loop's."""

    aged = timedelta()

    def age(self, by: timedelta) -> None:
        self.aged += by

    def answered(self) -> None:
        super().answered()
        self.aged = timedelta()

    def answered_since(self, ago: timedelta) -> bool:
        return super().answered_since((ago - self.aged) * PACE)


class Daemon:
    """What `listener run` does about the library, in a process of its own but for the loop."""

    parts: Parts
    consumer: Consumer

    def __init__(self, dsn: str, lml: ScriptedLml, number: int) -> None:
        self.database = Database(dsn, BACKEND, f"loop {number}", timedelta(seconds=30))
        self.circuit = AgingCircuit(Stream.LIBRARY, _SILENCE)
        self.sweeps: list[asyncio.Task[bool]] = []
        self._lml = lml
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        week, second = timedelta(days=7), timedelta(seconds=1)
        # Without the environment, which a checked model reads.
        settings = Settings.model_construct(
            database_url=SecretStr(self.database.dsn),
            library_metadata_url=AnyHttpUrl(_LML),
            batch_size=_BATCH_SIZE,
            lml_max_concurrent=_CALLS,
            va_batch_size=2,
            max_attempts=MAX_ATTEMPTS,
            linger=timedelta(),
            reask_after=timedelta(),
            poll_interval=second / 10,
        )
        limits = LmlLimits(4, 1, 30 * second, 30 * second, 2**20)
        transport = httpx.MockTransport(self._lml)
        async with (
            open_pool(self.database, size=12) as pool,
            httpx.AsyncClient(transport=transport, base_url=_LML) as http,
        ):
            self.parts = Parts(
                settings=settings,
                store=Store(self.database, pool, AskAgain(resolved=week, unresolved=week)),
                lml=LmlClient(http, limits, "http://lml.test/health"),
                permits=Permits(_CALLS),
                reading=Permits(_CALLS),
                writing=Permits(_CALLS),
                circuits={Stream.LIBRARY: self.circuit},
            )
            library = LibraryParts(self.parts)
            resolver = library.resolver()
            self.consumer = library.consumer(resolver)
            retriers = library.retriers(resolver.tally)
            beside = {self.consumer: [each.run for each in retriers]}
            lanes = PostgresLanes(
                self.database,
                LaneTimes(beat=10 * second, patience=60 * second),
                lambda _stream: LaneReport(self.circuit.state, self.consumer.fault),
            )
            self._ready.set()
            await Supervisor(lanes, beside, 10 * second).run(self._stop)

    async def begin_sweep(self) -> None:
        """Begin a sweep; its task returns whether it came to its end."""
        await self._ready.wait()
        self.sweeps.append(asyncio.get_running_loop().create_task(self._sweep()))

    async def _sweep(self) -> bool:
        with suppress(RunHaltedError, StoreUnavailableError):
            library = LibraryParts(self.parts)
            await library.reconciler().run(RunKind.SWEEP, library.scope, cause="test")
            return True
        return False

    @property
    def sweeping(self) -> bool:
        return not all(sweep.done() for sweep in self.sweeps)

    @property
    def held(self) -> int:
        """How many changes are in its waiting room."""
        pulse = self.consumer.pulse() if self._ready.is_set() else None
        return pulse.held if pulse else 0

    async def stop(self) -> None:
        """Drain; returns when all has ended."""
        self._stop.set()
        await self._end(*self.sweeps)

    async def kill(self) -> None:
        """End at once; statements on their way take effect or do not."""
        await self._end(self._running, *self.sweeps)

    async def _end(self, *cancelled: asyncio.Task[Any]) -> None:
        for task in cancelled:
            task.cancel()
        tasks = {self._running, *self.sweeps}
        _, late = await asyncio.wait(tasks, timeout=5 * PACE)
        assert not late, f"{self.database.holder} does not end"
        with suppress(asyncio.CancelledError):
            await self._running


class Row(NamedTuple):
    """A release beside what is known of it; `change` says that one is in the outbox."""

    id: int
    artist: str | None
    title: str
    same: bool
    failures: int
    parked: bool
    due: bool | None
    finite: bool | None
    lasted_hours: float
    change: bool
    misplaced: bool
    qid: str | None
    method: str | None
    notes: str | None


class Backend:
    """A session of the backend, in the loop of the daemons: it may wait for them, and they for it.

    Beside the backend's tables it keeps `changed`, until when a row had another name, `refused`,
    the rows that the database refuses to identify, and `misplaced`, the verdicts that landed on a
    row that asked something else by then.
    """

    _connection: psycopg.AsyncConnection[Any]

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.locks: dict[int, psycopg.AsyncConnection[Any]] = {}

    async def open(self) -> None:
        self._connection = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
        await self.do("SET search_path = wxyc_schema, public; SET lock_timeout = '750ms'")
        await self.do(_EMPTY)

    async def close(self) -> None:
        await self.unlock()
        await self._connection.close()

    async def do(self, statement: LiteralString, *values: object) -> list[Any]:
        cursor = await self._connection.execute(statement, values or None)
        return await cursor.fetchall() if cursor.description else []

    async def change(self, rows: list[int], statement: LiteralString, *values: object) -> None:
        """Change what LML is asked about some rows."""
        await self.do(
            "INSERT INTO changed SELECT unnest(%s::int[]), 'infinity'"
            " ON CONFLICT (library_id) DO UPDATE SET until = 'infinity'",
            rows,
        )
        async with self._connection.transaction():
            await self.do(statement, *values)
        statement = "UPDATE changed SET until = clock_timestamp() WHERE library_id = ANY (%s)"
        await self.do(statement, rows)

    async def delete(self, row: int) -> None:
        statement = "DELETE FROM library_identity_source WHERE library_id = %s"
        await self.change([row], statement, row)
        await self.do("DELETE FROM library_identity WHERE library_id = %s", row)
        await self.do("DELETE FROM library WHERE id = %s", row)

    async def identify(self, row: int, *identity: str) -> None:
        await self.do(
            "INSERT INTO library_identity"
            " (library_id, wikidata_qid, method, notes, confidence, last_verified_at)"
            " VALUES (%s, %s, %s, %s, 1, now()) ON CONFLICT (library_id) DO UPDATE"
            " SET (wikidata_qid, method, notes)"
            " = ROW (excluded.wikidata_qid, excluded.method, excluded.notes)",
            *(row, *identity),
        )

    async def age(self, seconds: int) -> None:
        """Have everything that failed have failed so much earlier."""
        await self.do(
            "UPDATE listener.ledger SET next_ask_at = next_ask_at - by, failed_at = failed_at - by,"
            " failing_since = failing_since - by FROM make_interval(secs => %s) AS by"
            " WHERE failures > 0",
            seconds,
        )

    async def cut(self, holder: str) -> None:
        await self.do(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE %s AND datname = current_database()",
            holder,
        )

    async def changes(self) -> int:
        return int((await self.do("SELECT count(*) FROM listener.change"))[0][0])

    async def lock(self, row: int) -> None:
        session = await psycopg.AsyncConnection.connect(self._dsn)
        self.locks[row] = session
        for name, key in (("library", "id"), ("library_identity", "library_id")):
            statement = f"SELECT FROM wxyc_schema.{name} WHERE {key} = %s FOR UPDATE"
            await session.execute(statement.encode(), (row,))

    async def unlock(self) -> None:
        while self.locks:
            await self.locks.popitem()[1].close()

    async def rows(self) -> list[Row]:
        cursor = self._connection.cursor()
        await cursor.execute(_ROWS)
        return [Row(*row) for row in await cursor.fetchall()]


_DIGEST = (
    "listener.question_digest(l.artist_name, l.album_title, l.legacy_release_id,"
    " coalesce(l.code_volume_letters LIKE 'Z%%', false))"
)
_ROWS = f"""
SELECT l.id, l.artist_name, l.album_title, coalesce(g.question = {_DIGEST}, false),
    coalesce(g.failures, 0), coalesce(g.parked, false), g.next_ask_at <= now(),
    isfinite(g.next_ask_at),
    coalesce(extract(epoch FROM g.failed_at - g.failing_since)::float / 3600, 0),
    EXISTS (SELECT FROM listener.change AS c WHERE c.row_id = l.id),
    EXISTS (SELECT FROM misplaced AS m WHERE m.library_id = l.id),
    i.wikidata_qid, i.method, i.notes
FROM library AS l
LEFT JOIN listener.ledger AS g ON g.library_id = l.id
LEFT JOIN library_identity AS i ON i.library_id = l.id
ORDER BY l.id
""".replace("%%", "%").encode()  # noqa: S608 - of constants alone

_EMPTY: LiteralString = """
DELETE FROM library_identity_source;
DELETE FROM library_identity;
DELETE FROM library;
TRUNCATE listener.ledger, listener.change, changed, misplaced, refused;
"""

SETUP = f"""
INSERT INTO wxyc_schema.artists (id, artist_name) VALUES (1, 'any');
CREATE TABLE changed (library_id int PRIMARY KEY, until timestamptz);
CREATE TABLE misplaced (library_id int);
CREATE TABLE refused (library_id int, code text);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    said text := (
        SELECT r.code FROM public.refused AS r
        WHERE coalesce(r.library_id, NEW.library_id) = NEW.library_id LIMIT 1
    );
BEGIN
    IF said IS NOT NULL AND current_setting('application_name') LIKE 'listener%' THEN
        RAISE EXCEPTION USING ERRCODE = said, MESSAGE = 'refused';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON wxyc_schema.library_identity
    FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE FUNCTION note_misplaced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.misplaced
    SELECT l.id
    FROM wxyc_schema.library AS l
    INNER JOIN public.changed AS c ON c.library_id = l.id AND c.until < now()
    WHERE l.id = NEW.library_id
        AND NEW.question <> {_DIGEST.replace("%%", "%")};
    RETURN NULL;
END $$;
CREATE TRIGGER note_misplaced AFTER INSERT OR UPDATE ON listener.ledger
    FOR EACH ROW WHEN (NEW.failures = 0) EXECUTE FUNCTION note_misplaced();
""".encode()  # noqa: S608 - of constants alone
