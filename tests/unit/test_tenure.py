"""Holding a lane while the database refuses: a few attempts, then the lane is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from listener.domain.change import Batch, BatchOutcome, Stream
from listener.domain.faults import LmlUnavailableError, StoreRefusedError, StoreUnavailableError
from listener.domain.room import RoomLimits
from listener.engine.circuit import Circuit
from listener.engine.consumer import Consumer
from listener.engine.tenure import ConsumerLimits
from tests.unit.clock import eventually, for_a_while, now
from tests.unit.fakes import Lane, Outbox, Worker

REFUSED = "permission denied for table ledger"
NONE = (None, None)
LIMITS = ConsumerLimits(
    RoomLimits(300, 20, timedelta(seconds=0.1), timedelta(seconds=2)), 2, timedelta(seconds=5)
)


class Case:
    """A consumer whose database refuses every batch while `refusing`."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.lane = Lane(self.outbox)
        self.worker = Worker(self.outbox, answer=self.answer)
        self.circuit = Circuit(Stream.LIBRARY)
        self.consumer = Consumer(
            Stream.LIBRARY, self.outbox, self.worker.handle, LIMITS, circuit=self.circuit
        )
        self.refusing = False
        self.refusal: type[StoreUnavailableError] = StoreUnavailableError
        self.stop = asyncio.Event()

    def answer(self, batch: Batch) -> BatchOutcome:
        if self.refusing:
            return BatchOutcome(fault=self.refusal(REFUSED))
        return BatchOutcome(frozenset(batch.changes))

    def no_answer(self, batch: Batch) -> BatchOutcome:
        fault = LmlUnavailableError(f"no answer about {len(batch.changes)} rows")
        self.circuit.failed(fault)
        return BatchOutcome(fault=fault)

    def record(self, *rows: int) -> None:
        self.outbox.record(*rows)
        self.lane.wake()

    @property
    def faults(self) -> tuple[str | None, str | None]:
        """The fault that the consumer and its pulse report."""
        pulse = self.consumer.pulse()
        assert pulse is not None
        return self.consumer.fault, pulse.fault

    async def follow(self) -> None:
        await self.consumer.follow(self.lane, self.stop)

    async def lose_to(self, fault: type[Exception]) -> None:
        """Follow until the tenure fails with this error and no other."""
        with pytest.raises(ExceptionGroup) as caught:
            await self.follow()
        rest = caught.value
        while True:
            assert len(rest.exceptions) == 1
            (error,) = rest.exceptions
            if not isinstance(error, ExceptionGroup):
                break
            rest = error
        assert isinstance(error, fault)


@asynccontextmanager
async def following(case: Case) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(case.follow())
        await eventually(lambda: case.consumer.pulse() is not None)
        yield
        case.worker.gate.set()
        case.stop.set()


async def test_changes_are_kept_and_handled_once_the_database_accepts_them() -> None:
    case = Case()
    async with following(case):
        case.refusing = True
        case.record(1, 2, 3, 4)
        await for_a_while(2.0)
        assert case.faults == (REFUSED, REFUSED)
        case.refusing = False
        await eventually(lambda: not case.outbox.entries, within=2.0)
        await eventually(lambda: case.faults == NONE, within=0.1)
    assert case.consumer.fault is None


async def test_lane_is_given_up_after_four_refusals_in_a_row() -> None:
    case = Case()
    case.refusing = True
    case.outbox.record(*range(50))
    began = now()
    await case.lose_to(StoreUnavailableError)
    assert now() - began == pytest.approx(3.5, abs=0.1)
    # Two batches were in flight when it began; then two of one row each time.
    assert [len(rows) for rows in case.worker.rows] == [20, 20, *[1] * 6]
    pauses = [round(b - a, 1) for a, b in pairwise(case.worker.begun_at)]
    assert pauses == [0, 0.5, 0, 1, 0, 2, 0]
    assert len(case.outbox.entries) == 50
    assert case.consumer.fault == REFUSED
    assert case.consumer.pulse() is None


async def test_successful_batch_resets_the_count_of_refusals() -> None:
    case = Case()
    async with following(case):
        for row in range(5):
            case.refusing = True
            case.record(row)
            await for_a_while(1.6)
            case.refusing = False
            await eventually(lambda: not case.outbox.entries, within=5.0)
            await for_a_while(10.0)
        assert len(case.worker.batches) == 5 * 4


async def test_fault_stays_visible_until_a_batch_succeeds_in_the_next_tenure() -> None:
    case = Case()
    case.refusing = True
    case.outbox.record(1)
    await case.lose_to(StoreUnavailableError)
    case.worker.gate.clear()
    async with following(case):
        await eventually(lambda: case.worker.in_flight)
        assert case.faults == (REFUSED, REFUSED)
        await for_a_while(30.0)
        assert case.faults == (REFUSED, REFUSED)
        case.refusing = False
        case.worker.gate.set()
        await eventually(lambda: not case.outbox.entries)
        await eventually(lambda: case.faults == NONE, within=0.1)
    assert case.consumer.fault is None


async def test_next_tenure_tries_four_times_again() -> None:
    case = Case()
    case.refusing = True
    case.outbox.record(1)
    for tenure in range(1, 4):
        await case.lose_to(StoreUnavailableError)
        assert len(case.worker.batches) == 4 * tenure
        assert case.consumer.fault == REFUSED


async def test_batch_that_lml_did_not_answer_proves_nothing_about_the_database() -> None:
    case = Case()
    case.refusing = True
    case.outbox.record(1)
    await case.lose_to(StoreUnavailableError)
    case.worker.answer = case.no_answer
    async with following(case):
        await for_a_while(30.0)
        assert len(case.worker.batches) > 4
        assert case.faults == (REFUSED, REFUSED)


async def test_part_that_was_written_before_lml_failed_shows_that_the_database_works() -> None:
    case = Case()
    case.refusing = True
    case.outbox.record(1, 2)
    await case.lose_to(StoreUnavailableError)
    case.worker.answer = lambda batch: replace(
        case.no_answer(batch), settled=frozenset(batch.row_ids[:1])
    )
    async with following(case):
        await eventually(lambda: case.faults == NONE)
        assert list(case.outbox.entries.values()) == [2]


async def test_batches_that_fail_together_count_as_one_refusal() -> None:
    case = Case()
    async with following(case):
        case.refusing = True
        case.worker.gate.clear()
        case.record(*range(40))
        await eventually(lambda: case.worker.in_flight == 2)
        case.worker.gate.set()
        await eventually(lambda: len(case.worker.batches) == 4)
        case.refusing = False
        await eventually(lambda: not case.outbox.entries)


async def test_each_refusal_is_logged_until_the_lane_is_given_up(
    logged: list[MutableMapping[str, Any]],
) -> None:
    case = Case()
    case.refusing = True
    case.outbox.record(1)
    await case.lose_to(StoreUnavailableError)
    entries = [entry for entry in logged if entry["event"].startswith("database unavailable")]
    assert [entry["failures"] for entry in entries] == [1, 2, 3]
    assert {(entry["reason"], entry["stream"]) for entry in entries} == {(REFUSED, "library")}
    assert [entry["next_try_in_seconds"] for entry in entries] == [0.5, 1, 2]


async def test_refusal_is_not_logged_as_an_outage(logged: list[MutableMapping[str, Any]]) -> None:
    case = Case()
    case.refusal = StoreRefusedError
    case.refusing = True
    case.outbox.record(1)
    await case.lose_to(StoreRefusedError)
    assert {entry["event"] for entry in logged if "reason" in entry} == {
        "database refuses, keeping changes in the outbox"
    }


async def test_unforeseen_error_breaks_the_tenure_and_loses_nothing() -> None:
    def fail(batch: Batch) -> BatchOutcome:
        raise ZeroDivisionError

    case = Case()
    case.worker.answer = fail
    case.outbox.record(1, 2, 3)
    await case.lose_to(ZeroDivisionError)
    assert list(case.outbox.entries.values()) == [1, 2, 3]
    assert case.consumer.pulse() is None
    case.worker.answer = case.answer
    async with following(case):
        await eventually(lambda: not case.outbox.entries, within=0.1)


@pytest.mark.parametrize("break_with", ["look", "settle"])
async def test_outbox_that_cannot_be_used_ends_the_tenure(break_with: str) -> None:
    async def gone(stream: Stream, entries: Sequence[tuple[int, int]]) -> None:
        message = f"{len(entries)} changes of {stream} cannot be settled"
        raise StoreUnavailableError(message)

    case = Case()
    case.outbox.record(1, 1)
    if break_with == "look":
        case.outbox.fault = StoreUnavailableError("connection refused")
    else:
        case.outbox.settle = gone  # type: ignore[method-assign]
        case.worker.gate.clear()
    await case.lose_to(StoreUnavailableError)
    assert list(case.outbox.entries.values()) == [1, 1]


async def test_second_tenure_starts_with_an_empty_room() -> None:
    case = Case()
    case.outbox.record(1, 2, 3)
    case.worker.answer = lambda batch: BatchOutcome(late=frozenset(batch.changes))
    asyncio.get_running_loop().call_later(1.0, case.lane.break_with, ZeroDivisionError())
    await case.lose_to(ZeroDivisionError)
    case.lane.fault = None
    case.worker.answer = case.answer
    async with following(case):
        # They would still be cooling down.
        await eventually(lambda: not case.outbox.entries, within=0.1)
