"""Keeping up with a stream: one question per row, bounded calls, nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from itertools import pairwise

import pytest

from listener.domain.change import Batch, BatchOutcome, Stream
from listener.domain.faults import (
    CallInterruptedError,
    LaneLostError,
    LmlUnavailableError,
    StoreUnavailableError,
)
from listener.domain.room import RoomLimits
from listener.engine.circuit import Circuit
from listener.engine.consumer import Consumer
from listener.engine.tenure import ConsumerLimits
from tests.unit.clock import eventually, for_a_while, now
from tests.unit.fakes import Lane, Outbox, Worker

POLL = 5.0


def limits(
    in_flight: int = 2,
    batch_size: int = 3,
    capacity: int = 30,
    cool_down: float = 2.0,
    poll: float = POLL,
) -> ConsumerLimits:
    room = RoomLimits(capacity, batch_size, timedelta(seconds=0.1), timedelta(seconds=cool_down))
    return ConsumerLimits(room, in_flight, timedelta(seconds=poll))


class Tenure:
    """A consumer that follows a lane; `end` stops it and waits until it is done.

    Like a resolver, its worker reports to the circuit how LML answered.
    """

    def __init__(
        self,
        consumer_limits: ConsumerLimits,
        well: Callable[[], Awaitable[bool]] | None = None,
        calls: Callable[[], int] | None = None,
    ) -> None:
        self.outbox = Outbox()
        self.lane = Lane(self.outbox)
        self.worker = Worker(self.outbox)
        self.stop = asyncio.Event()
        self.circuit = Circuit(Stream.LIBRARY)
        self.consumer = Consumer(
            Stream.LIBRARY,
            self.outbox,
            self.handle,
            consumer_limits,
            circuit=self.circuit,
            well=well,
            calls=calls,
        )

    async def handle(self, batch: Batch) -> BatchOutcome:
        try:
            outcome = await self.worker.handle(batch)
            if outcome.tried - outcome.unasked:
                self.circuit.replied()
            if isinstance(outcome.fault, LmlUnavailableError):
                self.circuit.failed(outcome.fault)
            return outcome
        finally:
            self.circuit.end_trial()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        self.following = tasks.create_task(self.consumer.follow(self.lane, self.stop))

    def record(self, *rows: int) -> None:
        self.outbox.record(*rows)
        if not self.lane.awake():
            self.lane.wake()

    async def end(self, within: float = 1.0) -> None:
        self.stop.set()
        async with asyncio.timeout(within):
            await self.following


@asynccontextmanager
async def following(
    consumer_limits: ConsumerLimits | None = None,
    well: Callable[[], Awaitable[bool]] | None = None,
) -> AsyncIterator[Tenure]:
    tenure = Tenure(consumer_limits or limits(), well)
    async with asyncio.TaskGroup() as tasks:
        tenure.start(tasks)
        yield tenure
        tenure.worker.gate.set()
        await tenure.end()


async def test_change_is_handled_and_leaves_the_outbox() -> None:
    async with following() as tenure:
        tenure.record(7)
        await eventually(lambda: not tenure.outbox.entries and tenure.worker.batches)
    assert tenure.worker.rows == [[7]]
    assert tenure.consumer.claim_lag.count == 1


async def test_change_of_an_idle_stream_is_handled_without_waiting_for_anything() -> None:
    async with following() as tenure:
        await for_a_while(1.0)
        recorded_at = now()
        tenure.record(7)
        await eventually(lambda: tenure.worker.batches)
    assert tenure.worker.begun_at[0] - recorded_at < 0.001


async def test_changes_that_waited_before_the_tenure_are_handled() -> None:
    tenure = Tenure(limits())
    tenure.outbox.record(1, 2)
    async with asyncio.TaskGroup() as tasks:
        tenure.start(tasks)
        await eventually(lambda: not tenure.outbox.entries)
        await tenure.end()
    assert tenure.worker.rows == [[1, 2]]


async def test_several_changes_of_one_row_become_one_question() -> None:
    async with following() as tenure:
        tenure.record(7, 8, 7, 7)
        await eventually(lambda: not tenure.outbox.entries)
    assert tenure.worker.rows == [[7, 8]]
    assert tenure.worker.batches[0].changes == {7: (4,), 8: (2,)}


async def test_row_changed_while_in_flight_is_asked_again_afterwards() -> None:
    async with following() as tenure:
        tenure.worker.gate.clear()
        tenure.record(7)
        await eventually(lambda: tenure.worker.in_flight)
        tenure.record(7)
        await for_a_while(1.0)
        assert len(tenure.worker.batches) == 1
        tenure.worker.gate.set()
        await eventually(lambda: not tenure.outbox.entries)
    assert tenure.worker.rows == [[7], [7]]


async def test_row_edited_in_bursts_costs_few_questions() -> None:
    async with following(limits(capacity=3)) as tenure:
        for _ in range(200):
            tenure.record(7)
            await for_a_while(0.01)
        await eventually(lambda: not tenure.outbox.entries)
    assert len(tenure.worker.batches) <= 3


async def test_batches_in_flight_are_limited() -> None:
    async with following(limits(in_flight=2, batch_size=3)) as tenure:
        tenure.worker.gate.clear()
        tenure.record(*range(20))
        await for_a_while(10.0)
        assert tenure.worker.in_flight == 2
        tenure.worker.gate.set()
        await eventually(lambda: not tenure.outbox.entries)
    assert tenure.worker.most_in_flight == 2
    assert max(len(rows) for rows in tenure.worker.rows) == 3


async def test_no_more_is_claimed_than_the_room_holds() -> None:
    async with following(limits(in_flight=1, batch_size=2, capacity=6)) as tenure:
        tenure.worker.gate.clear()
        tenure.record(*range(50))
        await for_a_while(10.0)
        assert len(tenure.outbox.claimed) == 6
        tenure.worker.gate.set()
        await eventually(lambda: not tenure.outbox.entries)
    assert sorted(tenure.outbox.claimed) == list(range(1, 51))


async def test_no_row_is_in_flight_twice_and_no_change_is_claimed_twice() -> None:
    async with following(limits(in_flight=3, batch_size=2, cool_down=0)) as tenure:
        for number in range(100):
            tenure.worker.gate.clear()
            tenure.record(number % 4, number % 3)
            await for_a_while(0.003)
            in_flight = [row for rows in tenure.worker.rows[-3:] for row in rows]
            if tenure.worker.in_flight == 3:
                assert len(in_flight) == len(set(in_flight))
            tenure.worker.gate.set()
        await eventually(lambda: not tenure.outbox.entries)
    assert len(tenure.outbox.claimed) == len(set(tenure.outbox.claimed)) == 200


def unavailable_until(
    tenure: Tenure, when: float, retry_after: float | None = None
) -> Callable[[Batch], BatchOutcome]:
    def answer(batch: Batch) -> BatchOutcome:
        if now() < when:
            silence = None if retry_after is None else timedelta(seconds=retry_after)
            return BatchOutcome(fault=LmlUnavailableError("ConnectError", silence))
        return BatchOutcome(frozenset(batch.changes))

    return answer


async def test_fault_of_lml_counts_although_part_of_the_batch_was_settled() -> None:
    fault = LmlUnavailableError("LML answered 503", timedelta(seconds=60))
    async with following(limits(in_flight=1)) as tenure:
        tenure.worker.answer = lambda batch: BatchOutcome(
            settled=frozenset(batch.row_ids[:1]), unasked=frozenset(batch.row_ids[:1]), fault=fault
        )
        tenure.record(*range(8))
        await for_a_while(59)
        assert len(tenure.worker.batches) == 1
        assert len(tenure.outbox.entries) == 7
        await for_a_while(2)
        assert len(tenure.worker.batches) == 2


async def test_nothing_is_claimed_or_asked_while_calls_to_lml_are_paused() -> None:
    async with following(limits(in_flight=2)) as tenure:
        tenure.worker.answer = unavailable_until(tenure, now() + 3600, retry_after=100)
        tenure.record(1)
        await eventually(lambda: tenure.worker.batches)
        await for_a_while(0.01)
        looks, batches = len(tenure.outbox.looks), len(tenure.worker.batches)
        tenure.record(2, 3)
        await for_a_while(98.0)
        assert len(tenure.outbox.looks) == looks
        assert len(tenure.worker.batches) == batches
        assert sorted(tenure.outbox.entries.values()) == [1, 2, 3]


async def test_lml_that_is_down_is_asked_four_times_a_minute() -> None:
    async with following(limits(in_flight=2)) as tenure:
        tenure.worker.answer = unavailable_until(tenure, now() + 3600)
        tenure.record(*range(9))
        await for_a_while(200.0)
        first_round = tenure.worker.begun_at[0]
        later = [at for at in tenure.worker.begun_at if at > first_round + 0.5]
        pauses = [round(b - a) for a, b in pairwise(later)]
        assert pauses == [15] * 12
        assert len(tenure.outbox.entries) == 9


async def test_lml_that_reports_it_is_back_is_asked_at_once_and_the_backlog_drains() -> None:
    up_at = now() + 600.0

    async def well() -> bool:
        return now() >= up_at

    async with following(limits(in_flight=2, batch_size=20), well) as tenure:
        tenure.worker.answer = unavailable_until(tenure, up_at)
        tenure.record(*range(40))
        await eventually(lambda: not tenure.outbox.entries, within=605.0)
    tried = [at for at in tenure.worker.begun_at if at < up_at]
    assert len(tried) <= 2 + 4 * 10
    trial = next(
        batch
        for batch, at in zip(tenure.worker.batches, tenure.worker.begun_at, strict=True)
        if at >= up_at
    )
    assert len(trial.changes) == 1


async def test_lml_that_reports_healthy_but_fails_is_believed_once() -> None:
    async def well() -> bool:
        return True

    async with following(limits(in_flight=1), well) as tenure:
        tenure.worker.answer = unavailable_until(tenure, now() + 3600)
        tenure.record(1)
        await for_a_while(300.0)
    # The first attempt, one after a healthy report, and four a minute.
    assert len(tenure.worker.batches) <= 2 + 4 * 5


async def test_one_row_goes_ahead_alone_after_a_failure() -> None:
    async with following(limits(in_flight=3, batch_size=2)) as tenure:
        back_at = now() + 5.0
        tenure.worker.answer = unavailable_until(tenure, back_at)
        tenure.record(*range(12))
        await eventually(lambda: now() > back_at - 1.0)
        tenure.worker.gate.clear()
        before = len(tenure.worker.batches)
        await eventually(lambda: tenure.worker.in_flight == 1, within=10.0)
        await for_a_while(14.0)
        assert [len(rows) for rows in tenure.worker.rows[before:]] == [1]
        # A hanging trial holds others back for the length of the longest pause.
        await for_a_while(46.0)
        assert [len(rows) for rows in tenure.worker.rows[before:]] == [1, 1, 1]
        begun_at = tenure.worker.begun_at[before:]
        assert [round(b - a) for a, b in pairwise(begun_at)] == [15, 15]
        tenure.worker.gate.set()
        await eventually(lambda: tenure.circuit.failures == 0)
        tenure.worker.most_in_flight = 0
        tenure.record(*range(12, 24))
        await eventually(lambda: not tenure.outbox.entries)
        assert tenure.worker.most_in_flight == 3
    assert sorted(set(tenure.outbox.settled)) == [(row + 1, row) for row in range(24)]


async def test_hanging_call_does_not_block_the_next_trial() -> None:
    async with following(limits(in_flight=2)) as tenure:
        tenure.worker.gate.clear()
        tenure.record(1, 2)
        await eventually(lambda: tenure.worker.in_flight)
        tenure.circuit.failed(LmlUnavailableError("ConnectError"))
        tenure.record(3, 4)
        await for_a_while(7.5)
        assert tenure.worker.rows == [[1, 2]]
        await eventually(lambda: len(tenure.worker.rows) == 2, within=1.0)
        assert tenure.worker.rows == [[1, 2], [3]]
        assert tenure.worker.in_flight == 2


async def test_answer_resets_the_growing_pauses() -> None:
    async with following() as tenure:
        tenure.worker.answer = unavailable_until(tenure, now() + 20.0)
        tenure.record(1)
        await eventually(lambda: not tenure.outbox.entries, within=60.0)
        tenure.worker.begun_at.clear()
        tenure.worker.answer = unavailable_until(tenure, now() + 0.5)
        tenure.record(2)
        await eventually(lambda: not tenure.outbox.entries)
    first, second = tenure.worker.begun_at
    assert second - first == pytest.approx(8.0, abs=0.01)


async def test_rows_that_needed_no_question_prove_nothing_about_lml() -> None:
    async with following() as tenure:
        tenure.circuit.failed(LmlUnavailableError("ConnectError"))
        tenure.worker.answer = lambda batch: BatchOutcome(
            settled=frozenset(batch.changes), unasked=frozenset(batch.changes)
        )
        tenure.record(1)
        await eventually(lambda: not tenure.outbox.entries)
        assert tenure.circuit.failures == 1
        tenure.worker.answer = None
        tenure.record(2)
        await eventually(lambda: not tenure.outbox.entries, within=1.0)
        assert tenure.circuit.failures == 0


async def test_trial_that_ended_without_an_answer_allows_the_next_call() -> None:
    def answer(batch: Batch) -> BatchOutcome:
        if len(tenure.worker.batches) == 1:
            return BatchOutcome(fault=StoreUnavailableError("refused"))
        return BatchOutcome(frozenset(batch.changes))

    async with following() as tenure:
        tenure.circuit.failed(LmlUnavailableError("ConnectError"))
        tenure.worker.answer = answer
        tenure.record(1)
        await eventually(lambda: not tenure.outbox.entries)
    without_answer, again = tenure.worker.begun_at
    assert again - without_answer == pytest.approx(0.5, abs=0.21)


async def test_rows_are_retried_at_once_when_lml_answers_again() -> None:
    async with following() as tenure:
        tenure.worker.answer = unavailable_until(tenure, now() + 40.0)
        tenure.record(1)
        await eventually(lambda: not tenure.outbox.entries, within=60.0)
    pauses = [round(b - a) for a, b in pairwise(tenure.worker.begun_at)]
    assert pauses == [8, 15, 15, 15]


async def test_rows_that_failed_leave_the_outbox_and_the_room() -> None:
    async with following() as tenure:
        tenure.worker.answer = lambda batch: BatchOutcome(
            settled=frozenset(batch.changes), failed=frozenset(batch.changes) & {2}
        )
        tenure.record(1, 2, 3)
        await eventually(lambda: not tenure.outbox.entries, within=0.1)
        await for_a_while(600.0)
        assert tenure.worker.rows == [[1, 2, 3]]
        pulse = tenure.consumer.pulse()
        assert pulse is not None
        assert (pulse.held, pulse.fault) == (0, None)


async def test_row_that_changed_while_its_answer_was_late_leaves_nothing_behind() -> None:
    late = [False, True]
    async with following() as tenure:
        tenure.worker.answer = lambda batch: (
            BatchOutcome(late=frozenset(batch.changes))
            if late.pop()
            else BatchOutcome(frozenset(batch.changes))
        )
        tenure.worker.gate.clear()
        tenure.record(7)
        await eventually(lambda: tenure.worker.in_flight)
        tenure.record(7)
        await eventually(lambda: len(tenure.outbox.claimed) == 2)
        # All this while the floor rises.
        await for_a_while(3 * POLL)
        tenure.worker.gate.set()
        await eventually(lambda: not tenure.outbox.entries, within=2.1)
    assert tenure.worker.rows == [[7], [7]]
    assert tenure.outbox.claimed == [1, 2]


async def test_superseded_changes_leave_the_outbox_at_once() -> None:
    async with following(limits(capacity=3)) as tenure:
        tenure.worker.gate.clear()
        tenure.record(1)
        await eventually(lambda: tenure.worker.in_flight)
        tenure.record(*[7] * 600)
        await eventually(lambda: len(tenure.outbox.entries) == 2)
        assert list(tenure.outbox.entries.items()) == [(1, 1), (601, 7)]
        pulse = tenure.consumer.pulse()
        assert pulse is not None
        assert (pulse.held, pulse.claimed) == (2, 601)
        tenure.worker.gate.set()
        await eventually(lambda: not tenure.outbox.entries)
    assert tenure.worker.rows == [[1], [7]]


async def test_full_room_does_not_keep_lml_from_being_asked_when_it_is_back() -> None:
    up_at = now() + 30.5

    async def well() -> bool:
        return now() >= up_at

    async with following(limits(in_flight=1, batch_size=3, capacity=3), well) as tenure:
        tenure.worker.answer = unavailable_until(tenure, up_at)
        tenure.record(*range(9))
        await eventually(lambda: now() >= up_at)
        before = len(tenure.worker.batches)
        await eventually(lambda: len(tenure.worker.batches) > before, within=2.3)


async def test_findings_of_other_callers_about_lml_count_here() -> None:
    async with following() as tenure:
        tenure.circuit.failed(LmlUnavailableError("ConnectError", timedelta(seconds=600)))
        tenure.record(1)
        await for_a_while(300.0)
        assert not tenure.worker.batches
        tenure.circuit.replied()
        await eventually(lambda: tenure.worker.batches, within=0.3)


async def test_late_rows_are_asked_again_after_the_cool_down() -> None:
    async with following() as tenure:
        late = [True]

        def answer(batch: Batch) -> BatchOutcome:
            return (
                BatchOutcome(late=frozenset(batch.changes))
                if late.pop()
                else BatchOutcome(frozenset(batch.changes))
            )

        late.insert(0, False)
        tenure.worker.answer = answer
        tenure.record(7)
        await eventually(lambda: not tenure.outbox.entries)
    first, second = tenure.worker.begun_at
    assert second - first == pytest.approx(2.0, abs=0.01)


async def test_deferred_rows_share_calls_and_are_all_handled() -> None:
    async with following(limits(in_flight=2, batch_size=10, capacity=60)) as tenure:

        def defer_odd(batch: Batch) -> BatchOutcome:
            odd = frozenset(row for row in batch.changes if row % 5 == 0)
            rows = frozenset(batch.changes)
            return (
                BatchOutcome(settled=rows - odd, deferred=odd)
                if rows - odd
                else BatchOutcome(settled=rows)
            )

        tenure.worker.answer = defer_odd
        tenure.record(*range(200))
        await eventually(lambda: not tenure.outbox.entries)
    deferred = [rows for rows in tenure.worker.rows if all(row % 5 == 0 for row in rows)]
    assert sorted(row for rows in deferred for row in rows) == list(range(0, 200, 5))
    assert len(deferred) <= 10
    assert sorted(row for _, row in tenure.outbox.settled) == list(range(200))


async def test_stop_drains_what_is_in_flight_and_claims_no_more() -> None:
    async with following() as tenure:
        tenure.worker.gate.clear()
        tenure.record(1)
        await eventually(lambda: tenure.worker.in_flight == 1)
        tenure.stop.set()
        await for_a_while(0.01)
        tenure.record(2, 3)
        await for_a_while(20.0)
        assert not tenure.following.done()
        tenure.worker.gate.set()
        await eventually(tenure.following.done)
        assert list(tenure.outbox.entries.values()) == [2, 3]
        assert tenure.worker.rows == [[1]]
        assert tenure.worker.cancelled == 0


async def test_stop_prevents_a_claimed_batch_from_starting() -> None:
    async with following(limits(in_flight=1, batch_size=1)) as tenure:
        tenure.worker.gate.clear()
        tenure.record(1, 2, 3)
        await eventually(lambda: len(tenure.outbox.claimed) == 3)
        tenure.stop.set()
        tenure.worker.gate.set()
        await eventually(tenure.following.done)
        assert tenure.worker.rows == [[1]]
        assert list(tenure.outbox.entries.values()) == [2, 3]


@pytest.mark.parametrize("turns", [None, 0, 1, 2, 3, 4, 5])
async def test_stop_works_while_a_batch_ends(turns: int | None) -> None:
    async with following() as tenure:
        tenure.record(1)
        await eventually(lambda: not tenure.outbox.entries)
        # While a row cools down, the dispatcher waits with a timeout.
        tenure.record(1)
        await eventually(lambda: len(tenure.outbox.claimed) == 2)

        def answer(batch: Batch) -> BatchOutcome:
            if turns is None:
                tenure.stop.set()
            return BatchOutcome(frozenset(batch.changes))

        tenure.worker.answer = answer
        tenure.worker.gate.clear()
        tenure.record(2)
        await eventually(lambda: tenure.worker.in_flight == 1)
        tenure.worker.gate.set()
        for _ in range(turns or 0):
            await asyncio.sleep(0)
        await tenure.end()


async def lose_lane(tenure: Tenure, once: Callable[[], object]) -> None:
    async with asyncio.TaskGroup() as tasks:
        tenure.start(tasks)
        await eventually(once)
        tenure.lane.lose()


async def test_lost_lane_ends_the_tenure_and_what_is_in_flight() -> None:
    tenure = Tenure(limits())
    tenure.worker.gate.clear()
    tenure.outbox.record(1)
    with pytest.raises(ExceptionGroup) as caught:
        await lose_lane(tenure, once=lambda: tenure.worker.in_flight == 1)
    assert caught.group_contains(LaneLostError)
    assert tenure.worker.cancelled == 1
    assert list(tenure.outbox.entries.values()) == [1]


async def catch_up(tenure: Tenure, within: float = 60.0) -> None:
    async with asyncio.timeout(within):
        await tenure.consumer.catch_up(tenure.lane)


async def test_catching_up_handles_every_change_and_ends() -> None:
    tenure = Tenure(limits())
    tenure.outbox.record(*range(50), *range(10))
    before = asyncio.all_tasks()
    await catch_up(tenure)
    assert not tenure.outbox.entries
    assert asyncio.all_tasks() == before
    tenure.record(99)
    await for_a_while(20.0)
    assert list(tenure.outbox.entries.values()) == [99]


async def test_catching_up_with_nothing_ends_soon() -> None:
    tenure = Tenure(limits())
    await catch_up(tenure, within=0.1)
    assert not tenure.worker.batches


async def test_catching_up_waits_for_the_batch_in_flight() -> None:
    def answer(batch: Batch) -> BatchOutcome:
        rows = frozenset(batch.changes)
        return BatchOutcome(late=rows) if len(tenure.worker.batches) == 1 else BatchOutcome(rows)

    tenure = Tenure(limits())
    tenure.worker.answer = answer
    tenure.outbox.record(1)
    tenure.worker.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        catching_up = tasks.create_task(catch_up(tenure))
        await for_a_while(30.0)
        assert not catching_up.done()
        tenure.worker.gate.set()
    catching_up.result()
    assert not tenure.outbox.entries
    assert tenure.worker.cancelled == 0


@pytest.mark.parametrize("milliseconds", range(0, 40, 4))
async def test_catching_up_includes_changes_that_arrive_meanwhile(milliseconds: int) -> None:
    tenure = Tenure(limits(capacity=6))
    tenure.outbox.record(1)
    tenure.worker.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        catching_up = tasks.create_task(catch_up(tenure))
        await for_a_while(1.0)
        tenure.record(*range(2, 22))
        await for_a_while(1.0 + milliseconds / 1000)
        tenure.worker.gate.set()
    catching_up.result()
    assert not tenure.outbox.entries


async def test_fault_after_a_partial_answer_begins_a_pause() -> None:
    fault = CallInterruptedError("ReadTimeout")
    async with following(limits(in_flight=1, batch_size=20)) as tenure:
        tenure.worker.answer = lambda batch: BatchOutcome(
            settled=frozenset(batch.row_ids) - {7}, fault=fault
        )
        tenure.record(*range(8))
        await for_a_while(60)
        assert tenure.worker.rows == [[*range(8)], *[[7]] * 4]


async def test_changes_of_a_pause_are_claimed_before_lml_is_tried_again() -> None:
    async with following(limits(in_flight=1, batch_size=20)) as tenure:
        tenure.worker.answer = lambda batch: BatchOutcome(
            frozenset(batch.changes) - {7}, fault=CallInterruptedError("ReadTimeout")
        )
        tenure.record(7)
        await for_a_while(30)
        tenure.record(*range(100, 104))
        await for_a_while(15)
        # Row 7 failed before, so another row makes the better trial.
        assert tenure.worker.rows[-1] == [100]
        assert sorted(tenure.outbox.entries.values()) == [7, 101, 102, 103]
        await eventually(lambda: list(tenure.outbox.entries.values()) == [7], within=30.0)


async def test_lml_is_tried_again_after_a_pause_without_changes() -> None:
    async with following(limits(in_flight=1, poll=1000)) as tenure:
        tenure.worker.answer = unavailable_until(tenure, now() + 5)
        await for_a_while(1)
        tenure.record(7)
        await for_a_while(12)
        assert tenure.worker.rows == [[7]] * 2


async def test_catching_up_ends_once_failed_rows_are_in_the_ledger() -> None:
    tenure = Tenure(limits(batch_size=10))
    tenure.worker.answer = lambda batch: BatchOutcome(
        settled=frozenset(batch.changes), failed=frozenset(batch.changes) & {2}
    )
    tenure.outbox.record(1, 2, 3)
    await catch_up(tenure, within=0.5)
    assert tenure.worker.rows == [[1, 2, 3]]
    assert not tenure.outbox.entries


async def test_catching_up_settles_every_change_of_a_late_row() -> None:
    tenure = Tenure(limits())
    tenure.worker.answer = lambda batch: (
        BatchOutcome(late=frozenset(batch.changes))
        if len(tenure.worker.batches) < 3
        else BatchOutcome(frozenset(batch.changes))
    )
    tenure.outbox.record(7)
    tenure.worker.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        catching_up = tasks.create_task(catch_up(tenure))
        await eventually(lambda: tenure.worker.in_flight)
        tenure.record(7)
        await for_a_while(1.0)
        tenure.worker.gate.set()
    catching_up.result()
    assert tenure.worker.rows == [[7]] * 3
    assert not tenure.outbox.entries


@pytest.mark.parametrize(
    ("fault", "tries", "seconds"),
    [
        (LmlUnavailableError("ConnectError"), 2, 8),
        (CallInterruptedError("ReadTimeout"), 2, 8),
        (StoreUnavailableError("connection refused"), 4, 3.5),
    ],
)
async def test_catching_up_gives_up_on_a_service_that_keeps_failing(
    fault: LmlUnavailableError | StoreUnavailableError, tries: int, seconds: float
) -> None:
    tenure = Tenure(limits(in_flight=1))
    tenure.worker.answer = lambda batch: BatchOutcome(fault=fault)
    tenure.outbox.record(*range(20))
    began = now()
    with pytest.raises(type(fault), match=str(fault)):
        await catch_up(tenure)
    assert len(tenure.worker.batches) == tries
    assert now() - began == pytest.approx(seconds, abs=0.5)
    assert len(tenure.outbox.entries) == 20


async def test_catching_up_that_gave_up_raises_although_lml_answers_calls_in_flight() -> None:
    tenure = Tenure(limits(in_flight=2, batch_size=1))
    fault = LmlUnavailableError("ConnectError")
    tenure.outbox.record(1, 2, 3)
    tenure.worker.gate.clear()
    loop = asyncio.get_running_loop()
    for seconds in (1.0, 11.0):
        loop.call_later(seconds, tenure.circuit.failed, fault)
    loop.call_later(12.0, tenure.worker.gate.set)
    with pytest.raises(LmlUnavailableError, match="ConnectError"):
        await catch_up(tenure)
    assert tenure.circuit.failures == 0
    assert list(tenure.outbox.entries.values()) == [3]


async def test_lost_lane_ends_catching_up() -> None:
    tenure = Tenure(limits())
    tenure.outbox.record(1)
    tenure.worker.gate.clear()
    asyncio.get_running_loop().call_later(5.0, tenure.lane.lose)
    with pytest.raises(LaneLostError):
        await catch_up(tenure)
    assert tenure.worker.cancelled == 1
    assert list(tenure.outbox.entries.values()) == [1]


async def test_catching_up_asks_late_rows_again() -> None:
    tenure = Tenure(limits())
    tenure.worker.answer = lambda batch: (
        BatchOutcome(late=frozenset(batch.changes))
        if len(tenure.worker.batches) < 3
        else BatchOutcome(frozenset(batch.changes))
    )
    tenure.outbox.record(7)
    await catch_up(tenure)
    assert tenure.worker.rows == [[7]] * 3
    assert not tenure.outbox.entries


async def test_catching_up_continues_when_a_service_answers_again() -> None:
    tenure = Tenure(limits())
    tenure.worker.answer = unavailable_until(tenure, now() + 2.0)
    tenure.outbox.record(*range(20))
    await catch_up(tenure)
    assert not tenure.outbox.entries


@pytest.mark.parametrize("turns", range(0, 40, 2))
async def test_batch_interrupted_by_the_end_of_a_tenure_does_not_block_the_next(turns: int) -> None:
    tenure = Tenure(limits(batch_size=10, in_flight=5), calls=lambda: 1)
    tenure.outbox.record(1, 2)
    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as tasks:
            tenure.start(tasks)
            for _ in range(turns):
                await asyncio.sleep(0)
            tenure.lane.lose()
            await for_a_while(10)
    tenure.outbox.entries.clear()
    tenure.lane.lost = False
    async with asyncio.TaskGroup() as tasks:
        tenure.start(tasks)
        await for_a_while(1)
        tenure.record(3)
        await eventually(lambda: not tenure.outbox.entries, within=1)
        await tenure.end()
