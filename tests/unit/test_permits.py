"""Sharing the calls in flight: bounded, by priority, no caller stalled by one that gave up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.engine.circuit import Permits, Priority
from tests.unit.clock import for_a_while, now, virtually

CHANGE, RETRY, SEARCH = Priority
PATIENT = (RETRY, SEARCH)

# After this many turns of the loop every caller that can proceed has done so.
TURNS = 6


@dataclass
class Call:
    """A caller that wants a permit, and keeps it until `ending` is set."""

    priority: Priority
    task: asyncio.Task[None]
    inside: bool = False
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def waiting(self) -> bool:
        return not self.inside and not self.task.done()


class Callers:
    """All callers that share one set of permits."""

    def __init__(self, total: int, tasks: asyncio.TaskGroup) -> None:
        self.total = total
        self.permits = Permits(total)
        self.tasks = tasks
        self.calls: list[Call] = []

    def start(self, priority: Priority) -> Call:
        async def calling() -> None:
            async with self.permits.hold(priority):
                call.inside = True
                self.check_bounds()
                try:
                    await call.ending.wait()
                finally:
                    call.inside = False

        call = Call(priority, self.tasks.create_task(calling()))
        self.calls.append(call)
        return call

    async def started(self, *priorities: Priority) -> list[Call]:
        """Start some calls, and let those proceed that can."""
        calls = [self.start(priority) for priority in priorities]
        await self.settle()
        return calls

    async def end(self, call: Call) -> None:
        call.ending.set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def inside(self, *priorities: Priority) -> int:
        return sum(call.inside for call in self.calls if call.priority in priorities)

    def waiting(self, priority: Priority) -> bool:
        return any(call.waiting for call in self.calls if call.priority is priority)

    def check_bounds(self) -> None:
        assert self.inside(*Priority) <= self.total
        assert self.inside(*PATIENT) <= max(1, self.total - 1)

    def check_nobody_waits_in_vain(self) -> None:
        assert self.permits.in_flight == self.inside(*Priority)
        assert self.permits.for_changes() == self.total - self.inside(*PATIENT)
        full = self.inside(*Priority) == self.total
        if self.waiting(CHANGE):
            assert full
        elif any(map(self.waiting, PATIENT)):
            assert full or self.inside(*PATIENT) == max(1, self.total - 1)


@pytest.mark.parametrize("total", [1, 2, 5])
async def test_no_more_changes_are_in_flight_than_the_total(total: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(total, tasks)
        calls = await callers.started(*[CHANGE] * 8)
        for ended in range(8):
            assert callers.inside(CHANGE) == min(total, 8 - ended)
            await callers.end(next(call for call in calls if call.inside))


@pytest.mark.parametrize("total", [2, 3, 5])
@pytest.mark.parametrize("priority", PATIENT)
async def test_others_leave_one_free_for_a_change(priority: Priority, total: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(total, tasks)
        calls = await callers.started(*[priority] * 9)
        assert callers.inside(priority) == callers.permits.for_patient == total - 1
        assert callers.permits.for_changes() == 1
        [change] = await callers.started(CHANGE)
        assert change.inside
        for call in (*calls, change):
            call.ending.set()


async def test_retries_and_searches_together_leave_one_free_for_a_change() -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(3, tasks)
        calls = await callers.started(SEARCH, RETRY, SEARCH, RETRY)
        assert [call.inside for call in calls] == [True, True, False, False]
        for call in calls:
            call.ending.set()


async def test_others_leave_the_reserved_permit_when_a_change_ends() -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(2, tasks)
        first, second, change = await callers.started(SEARCH, SEARCH, CHANGE)
        await callers.end(change)
        assert first.inside
        assert second.waiting
        await callers.end(first)
        assert second.inside
        second.ending.set()


async def test_change_goes_before_others_that_waited_longer() -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(2, tasks)
        search, change, *waiting = await callers.started(SEARCH, CHANGE, SEARCH, RETRY, CHANGE)
        late = waiting.pop()
        await callers.end(search)
        assert late.inside
        assert not any(call.inside for call in waiting)
        await callers.end(change)
        assert [call.inside for call in waiting] == [False, True]
        for call in (late, *waiting):
            call.ending.set()


async def test_retry_goes_before_searches_that_waited_longer() -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(2, tasks)
        first, search, retry = await callers.started(SEARCH, SEARCH, RETRY)
        await callers.end(first)
        assert retry.inside
        assert search.waiting
        await callers.end(retry)
        assert search.inside
        search.ending.set()


async def test_with_one_permit_a_change_waits_only_for_the_call_in_flight() -> None:
    permits = Permits(1)
    waited = []
    searched = 0

    async def search() -> None:
        nonlocal searched
        while True:
            async with permits.hold(SEARCH):
                searched += 1
                await asyncio.sleep(2.0)

    async with asyncio.TaskGroup() as tasks:
        searches = [tasks.create_task(search()) for _ in range(5)]
        for _ in range(50):
            await for_a_while(0.7)
            began = now()
            async with permits.hold(CHANGE):
                waited.append(now() - began)
        for task in searches:
            task.cancel()
    assert max(waited) <= 2.001
    assert searched >= 10


@pytest.mark.parametrize("priority", PATIENT)
async def test_others_proceed_when_the_change_ahead_of_them_gives_up(
    priority: Priority,
) -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(3, tasks)
        change, other, third, patient, late = await callers.started(
            CHANGE, CHANGE, CHANGE, priority, CHANGE
        )
        # In one turn of the loop a permit becomes free and the caller next in line gives up.
        change.ending.set()
        await asyncio.sleep(0)
        late.task.cancel()
        await callers.settle()
        assert late.task.cancelled()
        assert patient.inside
        for call in (other, third, patient):
            call.ending.set()


@pytest.mark.parametrize(("higher", "lower"), [(CHANGE, RETRY), (CHANGE, SEARCH), (RETRY, SEARCH)])
async def test_caller_that_gave_up_waiting_no_longer_holds_others_back(
    higher: Priority, lower: Priority
) -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(1, tasks)
        first, late, patient = await callers.started(CHANGE, higher, lower)
        late.task.cancel()
        await callers.settle()
        await callers.end(first)
        assert patient.inside
        patient.ending.set()


async def test_search_proceeds_at_once_when_the_retry_ahead_of_it_gives_up() -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(2, tasks)
        first, search, retry = await callers.started(SEARCH, SEARCH, RETRY)
        first.ending.set()
        await asyncio.sleep(0)
        retry.task.cancel()
        await callers.settle()
        assert search.inside
        search.ending.set()


async def test_call_that_fails_gives_its_permit_back() -> None:
    permits = Permits(1)
    for priority in (*Priority, *Priority):
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(1.0), permits.hold(priority):
                raise ZeroDivisionError
    assert (permits.in_flight, permits.for_changes()) == (0, 1)


STEPS = st.tuples(
    st.sampled_from([*Priority, "end", "cancel", "cancel waiting", "turn", "settle"]),
    st.integers(0, 1000),
)


@given(st.integers(1, 4), st.lists(STEPS, max_size=60))
def test_no_caller_stalls_and_no_permit_is_lost_when_any_caller_gives_up(
    total: int, steps: list[tuple[Priority | str, int]]
) -> None:
    virtually(give_up_at_any_point(total, steps))


async def give_up_at_any_point(total: int, steps: list[tuple[Priority | str, int]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(total, tasks)
        for action, number in steps:
            await step(callers, action, number)
            callers.check_bounds()
        while any(not call.task.done() for call in callers.calls):
            await callers.settle()
            callers.check_nobody_waits_in_vain()
            for call in [call for call in callers.calls if call.inside][:1]:
                call.ending.set()
        # All permits are free again, for each priority.
        for priority in Priority:
            most = total if priority is CHANGE else callers.permits.for_patient
            calls = await callers.started(*[priority] * most)
            assert all(call.inside for call in calls)
            for call in calls:
                await callers.end(call)


async def step(callers: Callers, action: Priority | str, number: int) -> None:
    running = [call for call in callers.calls if not call.task.done()]
    match action:
        case Priority():
            callers.start(action)
        case "end" if inside := [call for call in running if call.inside]:
            inside[number % len(inside)].ending.set()
        case "cancel" if running:
            running[number % len(running)].task.cancel()
        case "cancel waiting" if waiting := [call for call in running if call.waiting]:
            waiting[number % len(waiting)].task.cancel()
        case "turn":
            await asyncio.sleep(0)
        case "settle":
            await callers.settle()
            callers.check_nobody_waits_in_vain()
