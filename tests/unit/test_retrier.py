"""Retrying failed rows: in time, in small steps, and whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from listener.domain.change import Batch, BatchOutcome, Stream
from listener.domain.faults import LmlUnavailableError, StoreUnavailableError
from listener.engine.circuit import Circuit
from listener.engine.retrier import Retrier, note_release, watch_releases
from listener.engine.supervisor import in_background
from tests.unit.clock import eventually, for_a_while, now

Logs = list[MutableMapping[str, Any]]

BATCH_SIZE = 20
DOWN = LmlUnavailableError("ConnectError")


def settled(batch: Batch) -> BatchOutcome:
    return BatchOutcome(settled=frozenset(batch.changes))


@dataclass
class Ledger:
    """Rows whose time has come, and what is asked about them.

    What settles is not due any more; `fault` is raised when it is asked.
    """

    due: list[int] = field(default_factory=list)
    fault: Exception | None = None
    looked_at: list[float] = field(default_factory=list)
    looked_for: list[int] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    answer: Callable[[Batch], BatchOutcome] = settled
    meanwhile: Callable[[], None] = lambda: None
    takes: float = 0.0

    async def find(self, limit: int) -> Sequence[int]:
        self.looked_at.append(now())
        self.looked_for.append(limit)
        await asyncio.sleep(0)
        self.meanwhile()
        if self.fault is not None:
            raise self.fault
        return self.due[:limit]

    async def handle(self, batch: Batch) -> BatchOutcome:
        self.batches.append(batch)
        await asyncio.sleep(self.takes)
        outcome = self.answer(batch)
        self.due = [row for row in self.due if row not in outcome.settled]
        return outcome

    @property
    def rows(self) -> list[list[int]]:
        return [batch.row_ids for batch in self.batches]

    @property
    def pauses(self) -> list[float]:
        return [round(b - a, 2) for a, b in pairwise(self.looked_at)]


@asynccontextmanager
async def retrying(ledger: Ledger) -> AsyncIterator[Circuit]:
    circuit = Circuit(Stream.LIBRARY)
    retrier = Retrier(ledger.find, ledger.handle, circuit, batch_size=BATCH_SIZE)
    async with in_background(retrier.run()):
        yield circuit


async def test_rows_due_for_a_retry_are_handled_without_changes_in_the_outbox() -> None:
    ledger = Ledger()
    async with retrying(ledger):
        await for_a_while(10.0)
        ledger.due = [3, 1, 2]
        await eventually(lambda: not ledger.due, within=1.1)
    assert [batch.changes for batch in ledger.batches] == [{3: (), 1: (), 2: ()}]
    assert set(ledger.looked_for) == {BATCH_SIZE}


async def test_retrier_looks_once_a_second_while_nothing_is_due() -> None:
    ledger = Ledger()
    async with retrying(ledger):
        await for_a_while(10.5)
    assert ledger.pauses == [1.0] * 10
    assert not ledger.batches


async def test_full_batch_is_followed_by_the_next_at_once() -> None:
    ledger = Ledger(due=list(range(50)))
    async with retrying(ledger):
        await for_a_while(0.5)
        assert [len(rows) for rows in ledger.rows] == [20, 20, 10]
        await for_a_while(2.0)
    assert ledger.pauses == [0, 0, 1, 1]


async def test_full_batch_that_settled_nothing_is_not_asked_about_over_and_over() -> None:
    ledger = Ledger(due=list(range(50)))
    ledger.answer = lambda batch: BatchOutcome(late=frozenset(batch.changes))
    async with retrying(ledger):
        await for_a_while(5.5)
    assert ledger.pauses == [1.0] * 5
    assert len(ledger.batches) == 6


@pytest.mark.parametrize(
    ("fault", "pauses"), [(DOWN, [1.0] * 6), (StoreUnavailableError("refused"), [2.0, 4.0])]
)
async def test_full_batch_with_a_fault_is_not_followed_at_once(
    fault: LmlUnavailableError | StoreUnavailableError, pauses: list[float]
) -> None:
    ledger = Ledger(due=list(range(50)))
    ledger.answer = lambda batch: BatchOutcome(settled=frozenset(batch.row_ids[:1]), fault=fault)
    async with retrying(ledger):
        await for_a_while(6.5)
    assert ledger.pauses == pauses


async def test_nothing_is_looked_for_or_asked_while_the_circuit_is_open() -> None:
    ledger = Ledger()
    async with retrying(ledger) as circuit:
        await for_a_while(0.5)
        circuit.failed(LmlUnavailableError("LML answered 503", timedelta(seconds=60)))
        ledger.due = [1, 2, 3]
        looks = len(ledger.looked_at)
        await for_a_while(59.0)
        assert len(ledger.looked_at) == looks
        assert not ledger.batches
        await eventually(lambda: ledger.batches, within=2.1)


async def test_one_row_is_tried_while_it_is_unknown_whether_lml_is_back() -> None:
    ledger = Ledger(due=list(range(30)))
    async with retrying(ledger) as circuit:
        circuit.failed(DOWN)

        def answer(batch: Batch) -> BatchOutcome:
            circuit.replied()
            return settled(batch)

        ledger.answer = answer
        await eventually(lambda: not ledger.due)
    assert ledger.rows == [[0], [*range(1, 21)], [*range(21, 30)]]
    # The first page was full, though only one row of it was asked about.
    assert ledger.pauses[:2] == [0, 0]


async def test_other_callers_wait_during_its_trial() -> None:
    ledger = Ledger(due=[1], takes=5.0)
    async with retrying(ledger) as circuit:
        circuit.failed(DOWN)
        await eventually(lambda: ledger.batches)
        assert circuit.paused_for() > timedelta(seconds=10)


async def test_trial_that_others_began_while_it_looked_is_waited_for() -> None:
    def begin() -> None:
        circuit.begin_trial()

    ledger = Ledger(due=[1], meanwhile=begin)
    async with retrying(ledger) as circuit:
        circuit.failed(DOWN)
        await eventually(lambda: ledger.looked_at)
        await for_a_while(0.5)
        assert not ledger.batches
        ledger.meanwhile = lambda: None
        circuit.end_trial()
        await eventually(lambda: ledger.batches, within=1.1)


async def test_finding_no_rows_begins_no_trial() -> None:
    ledger = Ledger()
    async with retrying(ledger) as circuit:
        circuit.failed(DOWN)
        await eventually(lambda: ledger.looked_at)
        assert not circuit.paused_for()


@pytest.mark.parametrize("where", ["find", "handle"])
async def test_retrier_waits_for_an_unavailable_database(where: str, logged: Logs) -> None:
    fault = StoreUnavailableError("connection refused")
    ledger = Ledger(due=[1])
    if where == "find":
        ledger.fault = fault
    else:
        ledger.answer = lambda batch: BatchOutcome(fault=fault)
    async with retrying(ledger):
        await for_a_while(250.0)
        assert ledger.pauses == [2, 4, 8, 16, 32, 60, 60, 60]
        assert logged == [
            {
                "event": "background work waits for the database",
                "work": "retries",
                "log_level": "warning",
                "reason": "connection refused",
                "failures": failures,
            }
            for failures in range(1, 10)
        ]
        ledger.fault, ledger.answer = None, settled
        await eventually(lambda: not ledger.due, within=61.0)
        looks = len(ledger.looked_at)
        ledger.fault = fault
        await eventually(lambda: len(ledger.looked_at) == looks + 2)
    # The success in between reset the delays.
    assert ledger.pauses[-1] == 2


@pytest.mark.parametrize("where", ["find", "handle"])
async def test_retrier_survives_any_error_with_growing_pauses(where: str, logged: Logs) -> None:
    def fail(batch: Batch) -> BatchOutcome:
        raise ZeroDivisionError

    ledger = Ledger(due=[1])
    if where == "find":
        ledger.fault = ZeroDivisionError()
    else:
        ledger.answer = fail
    async with retrying(ledger):
        await for_a_while(250.0)
        assert ledger.pauses == [2, 4, 8, 16, 32, 60, 60, 60]
        assert [entry["failures"] for entry in logged] == [*range(1, 10)]
        assert {entry["log_level"] for entry in logged} == {"error"}
        ledger.fault, ledger.answer = None, settled
        await eventually(lambda: not ledger.due, within=61.0)
        looks = len(ledger.looked_at)
        ledger.fault = ZeroDivisionError()
        await eventually(lambda: len(ledger.looked_at) == looks + 2)
    # The success in between reset the delays.
    assert ledger.pauses[-1] == 2


@dataclass
class Deployed:
    """The release that LML reports, and the releases that were recorded."""

    release: str | None = "1.0 aaa"
    noted: list[str] = field(default_factory=list)
    rows: int = 0
    fault: Exception | None = None

    async def ask(self) -> str | None:
        return self.release

    async def note(self, release: str) -> int:
        self.noted.append(release)
        if self.fault is not None:
            raise self.fault
        return self.rows


async def test_release_is_noted_at_once_and_every_minute() -> None:
    deployed = Deployed()
    async with in_background(watch_releases(deployed.ask, deployed.note)):
        await for_a_while(130.0)
        assert deployed.noted == ["1.0 aaa"] * 3
        deployed.release = "1.1 bbb"
        await for_a_while(60.0)
    assert deployed.noted[-1] == "1.1 bbb"


async def test_release_that_lml_does_not_name_is_not_noted() -> None:
    deployed = Deployed(release=None)
    await note_release(deployed.ask, deployed.note)
    assert deployed.noted == []


@pytest.mark.parametrize("rows", [0, 3])
async def test_release_is_logged_if_it_makes_rows_due(rows: int, logged: Logs) -> None:
    deployed = Deployed(rows=rows)
    await note_release(deployed.ask, deployed.note)
    expected = [("new LML release, retrying failed rows", 3)] if rows else []
    assert [(entry["event"], entry["rows"]) for entry in logged] == expected


@pytest.mark.parametrize(
    ("fault", "level"),
    [(StoreUnavailableError("connection refused"), "warning"), (ZeroDivisionError(), "error")],
)
async def test_release_that_cannot_be_noted_is_noted_later(
    fault: Exception, level: str, logged: Logs
) -> None:
    deployed = Deployed(fault=fault)
    with pytest.raises(type(fault)):
        await note_release(deployed.ask, deployed.note)
    async with in_background(watch_releases(deployed.ask, deployed.note)):
        await for_a_while(90.0)
        assert {entry["log_level"] for entry in logged} == {level}
        deployed.fault, deployed.rows = None, 7
        await eventually(lambda: logged[-1]["log_level"] == "info", within=61.0)
    assert logged[-1]["rows"] == 7
