"""Keeping up with a stream: one question per row, bounded calls, nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from itertools import pairwise

import pytest

from listener.domain.change import Batch, Stream
from listener.domain.faults import (
    CallBrokenOffError,
    LaneLostError,
    LmlUnavailableError,
    StoreUnavailableError,
)
from listener.domain.room import RoomLimits
from listener.engine.consumer import Consumer, ConsumerLimits
from listener.engine.handling import Handled
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
    """A consumer that follows a lane; `end` stops it and waits until it is done."""

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
        self.consumer = Consumer(
            Stream.LIBRARY,
            self.outbox,
            self.worker.handle,
            consumer_limits,
            well=well,
            calls=calls,
        )

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
    assert tenure.worker.batches[0].changes == {7: (1, 3, 4), 8: (2,)}


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
    async with following(limits(capacity=300)) as tenure:
        for _ in range(200):
            tenure.record(7)
            await for_a_while(0.01)
        await eventually(lambda: not tenure.outbox.entries)
    assert len(tenure.worker.batches) <= 3


async def test_at_most_so_many_batches_are_in_flight() -> None:
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
) -> Callable[[Batch], Handled]:
    def answer(batch: Batch) -> Handled:
        if now() < when:
            silence = None if retry_after is None else timedelta(seconds=retry_after)
            reason = "ConnectError"
            raise LmlUnavailableError(reason, silence)
        return Handled(frozenset(batch.changes))

    return answer


async def test_fault_of_lml_counts_though_a_part_of_the_batch_was_settled() -> None:
    fault = LmlUnavailableError("LML answered 503", timedelta(seconds=60))
    async with following(limits(in_flight=1)) as tenure:
        tenure.worker.answer = lambda batch: Handled(
            settled=frozenset(batch.row_ids[:1]), unasked=frozenset(batch.row_ids[:1]), fault=fault
        )
        tenure.record(*range(8))
        await for_a_while(59)
        assert len(tenure.worker.batches) == 1
        assert len(tenure.outbox.entries) == 7
        await for_a_while(2)
        assert len(tenure.worker.batches) == 2


async def test_nothing_is_claimed_or_asked_while_lml_is_left_alone() -> None:
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


async def test_lml_that_says_it_is_back_is_asked_at_once_and_the_backlog_drains() -> None:
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
    assert len(trial.changes) == 10


async def test_lml_that_says_it_is_well_and_fails_is_believed_once() -> None:
    async def well() -> bool:
        return True

    async with following(limits(in_flight=1), well) as tenure:
        tenure.worker.answer = unavailable_until(tenure, now() + 3600)
        tenure.record(1)
        await for_a_while(300.0)
    # The first try, one upon its word, and four a minute.
    assert len(tenure.worker.batches) <= 2 + 4 * 5


async def test_one_batch_goes_ahead_alone_after_a_failure() -> None:
    async with following(limits(in_flight=3, batch_size=2)) as tenure:
        back_at = now() + 5.0
        tenure.worker.answer = unavailable_until(tenure, back_at)
        tenure.record(*range(12))
        await eventually(lambda: now() > back_at - 1.0)
        tenure.worker.gate.clear()
        before = len(tenure.worker.batches)
        tenure.worker.most_in_flight = 0
        await for_a_while(60.0)
        assert len(tenure.worker.batches) == before + 1
        tenure.worker.gate.set()
        await eventually(lambda: not tenure.outbox.entries)
        assert tenure.worker.most_in_flight == 3
    assert sorted(set(tenure.outbox.settled)) == [(row + 1, row) for row in range(12)]


async def test_answer_ends_the_growth_of_the_pauses() -> None:
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


async def test_rows_that_needed_no_question_say_nothing_about_lml() -> None:
    async with following() as tenure:
        breaker = tenure.consumer.breaker
        breaker.failed(now())
        tenure.worker.answer = lambda batch: Handled(
            settled=frozenset(batch.changes), unasked=frozenset(batch.changes)
        )
        tenure.record(1)
        await eventually(lambda: not tenure.outbox.entries)
        assert breaker.failures == 1
        tenure.worker.answer = None
        tenure.record(2)
        await eventually(lambda: not tenure.outbox.entries, within=1.0)
        assert breaker.failures == 0


@pytest.mark.parametrize("fault", [StoreUnavailableError("refused"), ZeroDivisionError()])
async def test_trial_that_was_broken_off_does_not_leave_lml_unasked(fault: Exception) -> None:
    def answer(batch: Batch) -> Handled:
        if len(tenure.worker.batches) == 1:
            raise fault
        return Handled(frozenset(batch.changes))

    async with following() as tenure:
        tenure.consumer.breaker.failed(now())
        tenure.worker.answer = answer
        tenure.record(1)
        await eventually(lambda: not tenure.outbox.entries)
    broken_off, again = tenure.worker.begun_at
    assert again - broken_off == pytest.approx(1.0, abs=0.01)


async def test_rows_are_not_blamed_for_lml_being_unavailable() -> None:
    async with following() as tenure:
        back_at = now() + 40.0

        def answer(batch: Batch) -> Handled:
            if now() < back_at:
                raise LmlUnavailableError("ConnectError")
            if len(tenure.worker.batches) == tries_in_vain + 1:
                return Handled(failed=frozenset(batch.changes))
            return Handled(frozenset(batch.changes))

        tries_in_vain = 4
        tenure.worker.answer = answer
        tenure.record(1)
        await eventually(lambda: not tenure.outbox.entries, within=90.0)
    assert len(tenure.worker.batches) == tries_in_vain + 2
    failed, answered = tenure.worker.begun_at[-2:]
    assert answered - failed == pytest.approx(1.0, abs=0.01)


async def test_nothing_is_lost_while_the_database_is_unavailable_to_the_writer() -> None:
    async with following() as tenure:

        def answer(batch: Batch) -> Handled:
            if now() < 1003.0:
                raise StoreUnavailableError("connection refused")
            return Handled(frozenset(batch.changes))

        tenure.worker.answer = answer
        tenure.record(1, 2, 3, 4)
        await eventually(lambda: not tenure.outbox.entries)


async def test_unexpected_error_fails_only_its_rows() -> None:
    async with following(limits(batch_size=1)) as tenure:

        def answer(batch: Batch) -> Handled:
            if 2 in batch.changes and now() < 1010.0:
                raise ZeroDivisionError
            return Handled(frozenset(batch.changes))

        tenure.worker.answer = answer
        tenure.record(1, 2, 3)
        await for_a_while(0.5)
        assert sorted(tenure.outbox.entries.values()) == [2]
        tenure.record(4)
        await for_a_while(0.4)
        assert sorted(tenure.outbox.entries.values()) == [2]
        await eventually(lambda: not tenure.outbox.entries)
    tries = [
        at for at, rows in zip(tenure.worker.begun_at, tenure.worker.rows, strict=True) if 2 in rows
    ]
    delays = [round(b - a) for a, b in pairwise(tries)]
    assert delays == [1, 2, 4, 8]


async def test_late_rows_are_asked_again_after_the_cool_down() -> None:
    async with following() as tenure:
        late = [True]

        def answer(batch: Batch) -> Handled:
            return (
                Handled(late=frozenset(batch.changes))
                if late.pop()
                else Handled(frozenset(batch.changes))
            )

        late.insert(0, False)
        tenure.worker.answer = answer
        tenure.record(7)
        await eventually(lambda: not tenure.outbox.entries)
    first, second = tenure.worker.begun_at
    assert second - first == pytest.approx(2.0, abs=0.01)


async def test_failed_rows_do_not_hold_the_others_up() -> None:
    async with following() as tenure:
        tenure.worker.answer = lambda batch: Handled(
            settled=frozenset(batch.changes) - {2}, failed=frozenset(batch.changes) & {2}
        )
        tenure.record(1, 2, 3)
        await eventually(lambda: list(tenure.outbox.entries.values()) == [2], within=0.1)
        tenure.record(4)
        await eventually(lambda: list(tenure.outbox.entries.values()) == [2], within=0.1)


async def test_rows_set_apart_share_calls_and_are_all_handled() -> None:
    async with following(limits(in_flight=2, batch_size=10, capacity=60)) as tenure:

        def odd_apart(batch: Batch) -> Handled:
            odd = frozenset(row for row in batch.changes if row % 5 == 0)
            rows = frozenset(batch.changes)
            return Handled(settled=rows - odd, apart=odd) if rows - odd else Handled(settled=rows)

        tenure.worker.answer = odd_apart
        tenure.record(*range(200))
        await eventually(lambda: not tenure.outbox.entries)
    apart = [rows for rows in tenure.worker.rows if all(row % 5 == 0 for row in rows)]
    assert sorted(row for rows in apart for row in rows) == list(range(0, 200, 5))
    assert len(apart) <= 10
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


async def test_stop_starts_no_batch_that_was_claimed_but_not_begun() -> None:
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
async def test_stop_is_heard_while_a_batch_ends(turns: int | None) -> None:
    async with following() as tenure:
        tenure.record(1)
        await eventually(lambda: not tenure.outbox.entries)
        # A row that cools down has the dispatcher wait with a time limit.
        tenure.record(1)
        await eventually(lambda: len(tenure.outbox.claimed) == 2)

        def answer(batch: Batch) -> Handled:
            if turns is None:
                tenure.stop.set()
            return Handled(frozenset(batch.changes))

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


async def test_unreadable_outbox_ends_the_tenure() -> None:
    tenure = Tenure(limits())
    tenure.outbox.fault = StoreUnavailableError("connection refused")
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as tasks:
            tenure.start(tasks)
    assert caught.group_contains(StoreUnavailableError)


async def test_second_tenure_starts_with_an_empty_room() -> None:
    tenure = Tenure(limits())
    tenure.outbox.record(1, 2, 3)
    tenure.worker.answer = lambda batch: Handled(failed=frozenset(batch.changes))
    with pytest.raises(ExceptionGroup):
        await lose_lane(tenure, once=lambda: tenure.worker.batches)
    tenure.worker.answer = None
    tenure.lane.lost = False
    async with asyncio.TaskGroup() as tasks:
        tenure.start(tasks)
        await eventually(lambda: not tenure.outbox.entries, within=0.1)
        await tenure.end()


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


async def test_catching_up_waits_for_what_becomes_of_the_batch_in_flight() -> None:
    def answer(batch: Batch) -> Handled:
        rows = frozenset(batch.changes)
        return Handled(late=rows) if len(tenure.worker.batches) == 1 else Handled(rows)

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
async def test_catching_up_takes_in_what_comes_meanwhile(milliseconds: int) -> None:
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


async def test_catching_up_is_not_kept_by_rows_that_fail() -> None:
    tenure = Tenure(limits(batch_size=10))
    tenure.worker.answer = lambda batch: Handled(
        settled=frozenset(batch.changes) - {2}, failed=frozenset(batch.changes) & {2}
    )
    tenure.outbox.record(1, 2, 3)
    await catch_up(tenure, within=0.5)
    assert tenure.worker.rows == [[1, 2, 3]]
    assert list(tenure.outbox.entries.values()) == [2]


async def test_catching_up_comes_back_to_calls_that_break_off_until_a_row_was_asked_alone() -> None:
    def answer(batch: Batch) -> Handled:
        fault = CallBrokenOffError("ReadTimeout")
        done = len(tenure.worker.batches) >= most
        return Handled(frozenset(batch.changes)) if done else Handled(fault=fault)

    tenure, most = Tenure(limits()), 5
    tenure.worker.answer = answer
    tenure.outbox.record(7)
    await catch_up(tenure, within=120)
    assert tenure.worker.rows == [[7]] * 5
    assert not tenure.outbox.entries
    tenure, most = Tenure(limits()), 99
    tenure.worker.answer = answer
    tenure.outbox.record(7)
    with pytest.raises(CallBrokenOffError):
        await catch_up(tenure, within=120)
    assert tenure.worker.rows == [[7]] * 5


async def test_fault_after_a_part_was_answered_begins_a_silence_of_its_own() -> None:
    fault = CallBrokenOffError("ReadTimeout")
    async with following(limits(in_flight=1, batch_size=20)) as tenure:
        tenure.worker.answer = lambda batch: Handled(
            settled=frozenset(batch.row_ids) - {7}, fault=fault
        )
        tenure.record(*range(8))
        await for_a_while(60)
        assert tenure.worker.rows == [[*range(8)], *[[7]] * 4]


async def test_what_came_during_the_silence_is_claimed_before_lml_is_tried_again() -> None:
    async with following(limits(in_flight=1, batch_size=20)) as tenure:
        tenure.worker.answer = lambda batch: Handled(
            frozenset(batch.changes) - {7}, fault=CallBrokenOffError("ReadTimeout")
        )
        tenure.record(7)
        await for_a_while(30)
        tenure.record(*range(100, 104))
        await for_a_while(15)
        assert tenure.worker.rows[-1] == [7, *range(100, 104)]
        assert list(tenure.outbox.entries.values()) == [7]


async def test_lml_is_tried_again_though_nothing_came_during_the_silence() -> None:
    async with following(limits(in_flight=1, poll=1000)) as tenure:
        tenure.worker.answer = unavailable_until(tenure, now() + 5)
        await for_a_while(1)
        tenure.record(7)
        await for_a_while(12)
        assert tenure.worker.rows == [[7]] * 2


async def test_catching_up_asks_late_rows_again() -> None:
    tenure = Tenure(limits())
    tenure.worker.answer = lambda batch: (
        Handled(late=frozenset(batch.changes))
        if len(tenure.worker.batches) < 3
        else Handled(frozenset(batch.changes))
    )
    tenure.outbox.record(7)
    await catch_up(tenure)
    assert tenure.worker.rows == [[7]] * 3
    assert not tenure.outbox.entries


async def test_catching_up_is_not_kept_by_rows_that_somebody_holds() -> None:
    tenure = Tenure(limits())
    tenure.worker.answer = lambda batch: Handled(late=frozenset(batch.changes))
    tenure.outbox.record(7)
    await catch_up(tenure, within=20)
    assert tenure.worker.rows == [[7]] * 4
    assert list(tenure.outbox.entries.values()) == [7]


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [(LmlUnavailableError("ConnectError"), 8), (StoreUnavailableError("connection refused"), 1)],
)
async def test_catching_up_gives_up_after_the_second_failure_of_a_service(
    fault: Exception, seconds: float
) -> None:
    def answer(batch: Batch) -> Handled:
        raise fault

    tenure = Tenure(limits(in_flight=1))
    tenure.worker.answer = answer
    tenure.outbox.record(*range(20))
    began = now()
    with pytest.raises(type(fault), match=str(fault)):
        await catch_up(tenure)
    assert len(tenure.worker.batches) == 2
    assert now() - began == pytest.approx(seconds, abs=0.1)
    assert len(tenure.outbox.entries) == 20


async def test_catching_up_goes_on_when_a_service_answers_again() -> None:
    tenure = Tenure(limits())
    tenure.worker.answer = unavailable_until(tenure, now() + 2.0)
    tenure.outbox.record(*range(20))
    await catch_up(tenure)
    assert not tenure.outbox.entries


async def test_lost_lane_ends_the_catching_up() -> None:
    tenure = Tenure(limits())
    tenure.outbox.record(1)
    tenure.worker.gate.clear()
    asyncio.get_running_loop().call_later(5.0, tenure.lane.lose)
    with pytest.raises(ExceptionGroup) as caught:
        await catch_up(tenure)
    assert tenure.worker.cancelled == 1
    assert caught.group_contains(LaneLostError)
    assert list(tenure.outbox.entries.values()) == [1]


@pytest.mark.parametrize("turns", range(0, 40, 2))
async def test_batch_that_the_end_of_a_tenure_met_does_not_hold_up_the_next_one(turns: int) -> None:
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
