"""Whatever happens to the library, to LML, to the database and to us, every row is answered.

A failure prints its steps as a program, and a `@reproduce_failure`: put that above `machine` in
`test_whole_loop` to see it again. To keep it, make its steps a function and add that to `KEPT`.
To search for longer, raise `EXAMPLES`; with `Phase.shrink` in `PHASES` the steps get fewer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from structlog.testing import capture_logs

from tests.loop import (
    CAPACITY,
    INTERRUPTIONS,
    MAX_ATTEMPTS,
    ODD_RESULTS,
    OUTAGES,
    PACE,
    REFUSALS,
    SETUP,
    Backend,
    Daemon,
    HurryingLoop,
    Row,
    ScriptedLml,
    eventually,
    qid,
)

T = TypeVar("T")
P = ParamSpec("P")

EXAMPLES = 50
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)

ROW = st.integers(0, 5)
SOME = st.none() | ROW
ARTIST = st.sampled_from(("Stereolab", "Broadcast", "Nobody", "V/A"))
LETTERS = st.sampled_from((None, None, "Z"))
CODE = st.sampled_from(("WX001", "XX000", "0A000", "55000", "42501", "23514", "P0001"))
SECONDS = st.sampled_from((0, 10, 600, 5 * 3600))
# Questions about a row between two rests, whatever happens; and for each thing that does.
_ASKED_AT_MOST, _ASKED_FOR_EACH = 4, 2
_ROUNDS = 3


def in_loop(
    work: Callable[Concatenate[WholeLoop, P], Coroutine[Any, Any, None]],
) -> Callable[Concatenate[WholeLoop, P], None]:
    """Make a step of a coroutine: the daemons work as long as one goes on."""

    @wraps(work)
    def step(machine: WholeLoop, /, *args: P.args, **kwargs: P.kwargs) -> None:
        machine.do(work(machine, *args, **kwargs))

    return step


class WholeLoop(RuleBasedStateMachine):
    """A backend, a scripted LML and one or two daemons, on a database that they have to themselves.

    `events` counts what may have rows asked, by row, or under None what may concern all.
    """

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self.dsn = dsn
        self.runner = asyncio.Runner(loop_factory=HurryingLoop)
        self.backend = Backend(dsn)
        self.daemons: list[Daemon] = []
        self.began = self.titles = self.steps = 0
        self.former: dict[int, tuple[str | None, str]] = {}
        self.persons: dict[int, tuple[str, str, str]] = {}
        self.unseen: set[int] = set()
        self.events: Counter[int | None] = Counter()
        self.broken = False
        self.logs = capture_logs()
        self.logged = self.logs.__enter__()
        self.do(self.open())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self.runner.run(work)
        except BaseException:
            self.broken = True
            raise

    async def open(self) -> None:
        self.lml = ScriptedLml()
        self.rested_at = asyncio.get_running_loop().time()
        await self.backend.open()
        self.start_daemon()

    def start_daemon(self) -> None:
        self.began += 1
        self.events[None] += 1
        self.daemons.append(Daemon(self.dsn, self.lml, self.began))

    async def row(self, number: int) -> Row | None:
        """Return one of the rows that nobody keeps locked."""
        rows = [row for row in await self.backend.rows() if row.id not in self.backend.locks]
        return rows[number % len(rows)] if rows else None

    async def name(self, row: Row, artist: str | None, title: str | None = None) -> None:
        self.titles += 1
        title = title or f"Title {self.titles}"
        statement = "UPDATE library SET artist_name = %s, album_title = %s WHERE id = %s"
        await self.backend.change([row.id], statement, artist, title, row.id)
        self.events[row.id] += 1

    async def touch(self, number: int | None, artist: str | None = None) -> int | None:
        """Have one row asked about, or three, and return the one."""
        for each in range(3) if number is None else (number,):
            if row := await self.row(each):
                await self.name(row, artist or row.artist)
        return row.id if row and number is not None else None

    # What the backend and its people do.

    @initialize(artists=st.lists(ARTIST, min_size=2, max_size=5))
    def begin(self, artists: list[str]) -> None:
        self.insert(artists, None)

    @rule(artists=st.lists(ARTIST, min_size=1, max_size=3), letters=LETTERS)
    @in_loop
    async def insert(self, artists: list[str], letters: str | None) -> None:
        self.titles += 1
        self.events[None] += 1
        await self.backend.do(
            "INSERT INTO library (artist_id, artist_name, album_title, code_volume_letters)"
            " SELECT 1, name, %s, %s FROM unnest(%s::text[]) AS name",
            *(f"Title {self.titles}", letters, artists),
        )

    @rule(number=ROW, artist=st.none() | ARTIST)
    @in_loop
    async def rename(self, number: int, artist: str | None) -> None:
        if row := await self.row(number):
            self.former[row.id] = row.artist, row.title
            await self.name(row, artist)

    @rule(number=ROW)
    @in_loop
    async def rename_back(self, number: int) -> None:
        if (row := await self.row(number)) and row.id in self.former:
            await self.name(row, *self.former[row.id])

    @rule(number=ROW, artist=ARTIST, then=ARTIST)
    @in_loop
    async def rename_while_asked(self, number: int, artist: str, then: str) -> None:
        if row := await self.row(number):
            asked = self.lml.asked[row.id]
            self.lml.gate.clear()
            await self.name(row, artist)
            await eventually(lambda: self.lml.asked[row.id] > asked, 0.2)
            await self.name(row, then)
            self.lml.gate.set()

    @rule(artist=ARTIST, then=ARTIST)
    @in_loop
    async def rename_artist(self, artist: str, then: str) -> None:
        named = {row.id for row in await self.backend.rows() if row.artist == artist}
        rows = sorted(named - self.backend.locks.keys())
        statement = "UPDATE library SET artist_name = %s WHERE id = ANY (%s)"
        await self.backend.change(rows, statement, then, rows)
        self.events.update(rows)

    @rule(number=ROW, artist=ARTIST)
    @in_loop
    async def rename_unseen(self, number: int, artist: str) -> None:
        if row := await self.row(number):
            self.unseen.add(row.id)
            await self.backend.do("SET session_replication_role = replica")
            await self.name(row, artist)
            await self.backend.do("RESET session_replication_role")

    @rule(number=ROW)
    @in_loop
    async def delete(self, number: int) -> None:
        if row := await self.row(number):
            await self.backend.delete(row.id)
            self.persons.pop(row.id, None)

    @rule(number=ROW, artist=ARTIST)
    @in_loop
    async def lock(self, number: int, artist: str) -> None:
        if (row := await self.row(number)) and len(self.backend.locks) < 2:
            self.lml.gate.clear()
            await self.name(row, artist)
            await self.backend.lock(row.id)
            self.lml.gate.set()

    @rule(number=ROW, method=st.sampled_from(("manual", "exact_match")))
    @in_loop
    async def identify(self, number: int, method: str) -> None:
        if row := await self.row(number):
            self.persons[row.id] = f"P{row.id}", method, "librarian"
            await self.backend.identify(row.id, *self.persons[row.id])

    # What goes wrong.

    @in_loop
    async def lml_fails(self, number: int | None, fault: str) -> None:
        self.events[None] += 1
        self.lml.gate.clear()
        self.lml.faults[await self.touch(number)] = fault
        self.lml.gate.set()

    @rule(number=SOME, fault=st.sampled_from(ODD_RESULTS))
    def answer_oddly(self, number: int | None, fault: str) -> None:
        self.lml_fails(number, fault)

    @rule(number=SOME, fault=st.sampled_from(REFUSALS))
    def refuse(self, number: int | None, fault: str) -> None:
        self.lml_fails(number, fault)

    @rule(number=SOME, fault=st.sampled_from((*INTERRUPTIONS, *OUTAGES)))
    def do_not_answer(self, number: int | None, fault: str) -> None:
        self.lml_fails(number, fault)

    @rule()
    def hold_replies(self) -> None:
        self.lml.gate.clear()

    @rule(number=SOME, code=CODE)
    @in_loop
    async def refuse_writes(self, number: int | None, code: str) -> None:
        self.events[None] += 1
        self.lml.gate.clear()
        # One that gets an identity: nothing is written of the others.
        row = await self.touch(number, "Stereolab")
        await self.backend.do("INSERT INTO refused VALUES (%s, %s)", row, code)
        self.lml.gate.set()

    @rule()
    @in_loop
    async def recover(self) -> None:
        await self.repair()

    async def repair(self) -> None:
        """Have LML, the database and the backend's other sessions be as they should."""
        self.events[None] += 1
        self.lml.faults.clear()
        self.lml.gate.set()
        await self.backend.do("DELETE FROM refused")
        await self.backend.unlock()

    @rule()
    @in_loop
    async def cut_connections(self) -> None:
        self.events[None] += 1
        await self.backend.cut("loop %")

    @precondition(lambda self: len(self.daemons) < 2)
    @rule()
    @in_loop
    async def begin_daemon(self) -> None:
        self.start_daemon()

    @precondition(lambda self: self.daemons)
    @rule(at_once=st.booleans())
    @in_loop
    async def end_daemon(self, at_once: bool) -> None:
        daemon = self.daemons.pop(0)
        if at_once:
            await self.backend.cut(daemon.database.holder)
            await daemon.kill()
        else:
            self.lml.gate.set()
            await daemon.stop()

    @precondition(lambda self: self.daemons)
    @rule()
    @in_loop
    async def sweep(self) -> None:
        self.events[None] += 1
        await self.daemons[-1].begin_sweep()

    @rule(milliseconds=st.sampled_from((2, 10, 50)))
    @in_loop
    async def wait(self, milliseconds: int) -> None:
        await asyncio.sleep(milliseconds / 1000 * PACE)

    # What is true all the same.

    @rule(seconds=SECONDS)
    @in_loop
    async def come_to_rest(self, seconds: int) -> None:
        await self.rest(seconds)

    @invariant()
    def comes_to_rest_now_and_then(self) -> None:
        self.steps += 1
        if self.steps % 6 == 0:
            self.come_to_rest(0)

    async def rest(self, seconds: int = 0) -> None:
        """Let what failed be so much older, and wait until nothing is left to do: then look."""
        self.events[None] += 1
        await self.backend.age(seconds)
        self.lml.gate.set()
        if not self.daemons:
            self.start_daemon()
        for daemon in self.daemons:
            daemon.circuit.age(timedelta(seconds=seconds))
        down = not set(OUTAGES).isdisjoint(self.lml.faults.values())
        until = asyncio.get_running_loop().time() + (0.15 if down else 5) * PACE
        while True:
            rows, changes = await self.backend.rows(), await self.backend.changes()
            unfinished = [row for row in rows if not self.is_settled(row)]
            busy = self.lml.in_flight or any(daemon.sweeping for daemon in self.daemons)
            late = asyncio.get_running_loop().time() > until
            if late or not (unfinished or changes or busy):
                break
            await asyncio.sleep(0.005 * PACE)
        assert down or not late, f"still at work: {unfinished}, {changes} changes, busy: {busy}"
        self.look_at(rows, down=down)

    def is_settled(self, row: Row) -> bool:
        """Return whether it was answered as it is now, or failed and has its time."""
        if row.change or row.artist is None or row.id in self.unseen:
            return not row.change
        return row.same and (row.failures == 0 or bool(row.finite and not row.due))

    def look_at(self, rows: list[Row], *, down: bool) -> None:
        elapsed = asyncio.get_running_loop().time() - self.rested_at
        for row in rows:
            assert (down and (row.change or row.due)) or self.is_settled(row), f"lost: {row}"
            assert not row.misplaced, f"a verdict about another name landed on {row}"
            if row.id in self.persons:
                kept = (row.qid, row.method, row.notes) == self.persons[row.id]
                assert kept, f"a person's word is gone: {row}"
            elif row.same and row.failures == 0 and row.artist is not None:
                assert row.qid == qid(row.artist, row.title), f"not what LML said: {row}"
            early = row.failures < MAX_ATTEMPTS or row.lasted_hours < 4
            assert not (row.parked and early), f"parked early: {row}"
            events = self.events[None] + self.events[row.id]
            bound = _ASKED_AT_MOST + _ASKED_FOR_EACH * events + elapsed
            assert self.lml.asked[row.id] <= bound, f"asked {self.lml.asked[row.id]} times: {row}"
        for daemon in self.daemons:
            assert daemon.held <= 2 * CAPACITY
            silent = daemon.circuit.failures and not self.lml.unanswered
            assert not silent, f"taken for an outage: {daemon.circuit.fault}"
        self.lml.unanswered *= any(daemon.circuit.failures for daemon in self.daemons)
        odd = [event for event in self.logged if event.get("exc_info")]
        assert not odd, f"unforeseen: {odd}"
        for seen in (self.lml.asked, self.events, self.logged):
            seen.clear()
        self.rested_at = asyncio.get_running_loop().time()

    def teardown(self) -> None:
        try:
            if not self.broken:
                self.do(self.finish())
        finally:
            self.runner.run(self.close())
            self.runner.close()
            self.logs.__exit__(None, None, None)

    async def finish(self) -> None:
        """See that all that is wrong is known, repair it, and see that soon all is right."""
        await self.rest()
        await self.repair()
        await self.rest()
        for _ in range(_ROUNDS):
            await self.daemons[0].begin_sweep()
            await self.rest()
            # One that meets a connection that was cut gives up.
            if self.daemons[0].sweeps[-1].result():
                break
        self.unseen.clear()
        for _ in range(_ROUNDS):
            await self.rest(8 * 24 * 3600)
            failing = [row for row in await self.backend.rows() if row.artist and row.failures]
            if not failing:
                return
        raise AssertionError(f"still failing: {failing}")

    async def close(self) -> None:
        for daemon in self.daemons:
            await daemon.kill()
        await self.backend.close()


@pytest.fixture
def prepared(owner_dsn: str) -> str:
    """Where machines may work, one after the other."""
    with psycopg.connect(owner_dsn) as connection:
        connection.execute(SETUP)
    return owner_dsn


@pytest.mark.timeout(120)
def test_whole_loop(prepared: str) -> None:
    def machine() -> WholeLoop:
        return WholeLoop(prepared)

    run_state_machine_as_test(
        cast("type[WholeLoop]", machine),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            phases=PHASES,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=[*HealthCheck],
        ),
    )


def odd_answer_to_the_only_row_of_a_call(state: WholeLoop) -> None:
    state.answer_oddly(0, "sources")
    state.come_to_rest(600)


def locked_row(state: WholeLoop) -> None:
    # That of "Nobody", who has no identity yet: one that has needs no lock.
    state.lock(2, "Stereolab")
    state.come_to_rest(10)


def row_that_the_database_refuses(state: WholeLoop) -> None:
    state.refuse_writes(0, "WX001")
    state.come_to_rest(10)


def renamed_while_asked(state: WholeLoop) -> None:
    state.rename_while_asked(0, "Broadcast", "Stereolab")
    state.rename_while_asked(0, "Broadcast", "Nobody")
    state.come_to_rest(0)


def killed_while_connections_are_cut(state: WholeLoop) -> None:
    for milliseconds in (1, 3, 5, 10, 20, 40) * 4:
        state.begin_daemon()
        state.wait(milliseconds)
        state.end_daemon(at_once=True)


def parked_row(state: WholeLoop) -> None:
    state.answer_oddly(0, "kind")
    for _ in range(4):
        state.come_to_rest(5 * 3600)
        state.rename(1, "Broadcast")
    assert state.do(state.backend.rows())[0].parked


KEPT: list[Callable[[WholeLoop], None]] = [
    odd_answer_to_the_only_row_of_a_call,
    locked_row,
    row_that_the_database_refuses,
    renamed_while_asked,
    killed_while_connections_are_cut,
    parked_row,
]


@pytest.mark.parametrize("steps", KEPT)
def test_kept(prepared: str, steps: Callable[[WholeLoop], None]) -> None:
    state = WholeLoop(prepared)
    try:
        state.begin(["Stereolab", "Broadcast", "Nobody"])
        state.come_to_rest(0)
        steps(state)
    finally:
        state.teardown()
