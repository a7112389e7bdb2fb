"""Sharing the calls in flight: bounded, live ones first, nobody stalled by who gave up."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.engine.permits import Permits
from tests.unit.clock import for_a_while, now, virtually

# Whoever can move has moved after so many turns of the loop.
TURNS = 6


@dataclass
class Call:
    """Somebody who wants a permit, and keeps it until told to end."""

    live: bool
    task: asyncio.Task[None]
    inside: bool = False
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def waiting(self) -> bool:
        return not self.inside and not self.task.done()


class Callers:
    """Everybody who shares one set of permits."""

    def __init__(self, total: int, tasks: asyncio.TaskGroup) -> None:
        self.total = total
        self.permits = Permits(total)
        self.tasks = tasks
        self.calls: list[Call] = []

    def start(self, *, live: bool) -> Call:
        async def calling() -> None:
            async with self._permit(live=live):
                call.inside = True
                self.check_bounds()
                try:
                    await call.ending.wait()
                finally:
                    call.inside = False

        call = Call(live, self.tasks.create_task(calling()))
        self.calls.append(call)
        return call

    async def started(self, *kinds: bool) -> list[Call]:
        """Start some calls, live if True, and let those go that can."""
        calls = [self.start(live=live) for live in kinds]
        await self.settle()
        return calls

    async def end(self, call: Call) -> None:
        call.ending.set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def inside(self, *, live: bool) -> int:
        return sum(call.inside for call in self.calls if call.live is live)

    def check_bounds(self) -> None:
        assert self.inside(live=True) + self.inside(live=False) <= self.total
        assert self.inside(live=False) <= max(1, self.total - 1)

    def check_nobody_waits_in_vain(self) -> None:
        full = self.inside(live=True) + self.inside(live=False) == self.total
        if any(call.waiting for call in self.calls if call.live):
            assert full
        elif any(call.waiting for call in self.calls):
            assert full or self.inside(live=False) == max(1, self.total - 1)

    def _permit(self, *, live: bool) -> AbstractAsyncContextManager[None]:
        return self.permits.live() if live else self.permits.patient()


@pytest.mark.parametrize("total", [1, 2, 5])
async def test_no_more_live_calls_are_in_flight_than_the_total(total: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(total, tasks)
        calls = await callers.started(*[True] * 8)
        for ended in range(8):
            assert callers.inside(live=True) == min(total, 8 - ended)
            await callers.end(next(call for call in calls if call.inside))


@pytest.mark.parametrize("total", [2, 3, 5])
async def test_patient_calls_leave_one_free_for_a_live_one(total: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(total, tasks)
        calls = await callers.started(*[False] * 9)
        assert callers.inside(live=False) == callers.permits.for_patient == total - 1
        [live] = await callers.started(True)
        assert live.inside
        for call in (*calls, live):
            call.ending.set()


async def test_patient_calls_do_not_take_the_free_one_when_a_live_one_ends() -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(2, tasks)
        first, second, live = await callers.started(False, False, True)
        await callers.end(live)
        assert first.inside
        assert second.waiting
        await callers.end(first)
        assert second.inside
        second.ending.set()


async def test_live_call_goes_before_patient_ones_that_waited_longer() -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(2, tasks)
        patient, live, *waiting = await callers.started(False, True, False, False, True)
        late = waiting.pop()
        await callers.end(patient)
        assert late.inside
        assert not any(call.inside for call in waiting)
        await callers.end(live)
        assert [call.inside for call in waiting] == [True, False]
        for call in (late, *waiting):
            call.ending.set()


async def test_live_call_waits_for_the_one_in_flight_at_most_where_there_is_one_permit() -> None:
    permits = Permits(1)
    waited = []
    patient_calls = 0

    async def search() -> None:
        nonlocal patient_calls
        while True:
            async with permits.patient():
                patient_calls += 1
                await asyncio.sleep(2.0)

    async with asyncio.TaskGroup() as tasks:
        searches = [tasks.create_task(search()) for _ in range(5)]
        for _ in range(50):
            await for_a_while(0.7)
            began = now()
            async with permits.live():
                waited.append(now() - began)
        for task in searches:
            task.cancel()
    assert max(waited) <= 2.001
    assert patient_calls >= 10


async def test_patient_calls_go_on_when_the_live_one_they_stood_back_for_gives_up() -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(3, tasks)
        live, other, third, patient, late = await callers.started(True, True, True, False, True)
        # In one turn of the loop: a permit comes free, and who it was meant for gives up.
        live.ending.set()
        await asyncio.sleep(0)
        late.task.cancel()
        await callers.settle()
        assert late.task.cancelled()
        assert patient.inside
        for call in (other, third, patient):
            call.ending.set()


async def test_patient_calls_stand_back_no_more_for_a_live_one_that_gave_up_waiting() -> None:
    async with asyncio.TaskGroup() as tasks:
        callers = Callers(1, tasks)
        first, late, patient = await callers.started(True, True, False)
        late.task.cancel()
        await callers.settle()
        await callers.end(first)
        assert patient.inside
        patient.ending.set()


async def test_call_that_fails_gives_its_permit_back() -> None:
    permits = Permits(1)
    for permit in (permits.live, permits.patient) * 2:
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(1.0), permit():
                raise ZeroDivisionError


STEPS = st.tuples(
    st.sampled_from(["live", "patient", "end", "cancel", "cancel waiting", "turn", "settle"]),
    st.integers(0, 1000),
)


@given(st.integers(1, 4), st.lists(STEPS, max_size=60))
def test_whoever_gives_up_whenever_nobody_stalls_and_no_permit_is_lost(
    total: int, steps: list[tuple[str, int]]
) -> None:
    virtually(give_up_at_any_point(total, steps))


async def give_up_at_any_point(total: int, steps: list[tuple[str, int]]) -> None:
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
        # Every permit is there again, for either kind.
        all_live = await callers.started(*[True] * total)
        assert all(call.inside for call in all_live)
        for call in all_live:
            await callers.end(call)
        patient = await callers.started(*[False] * callers.permits.for_patient)
        assert all(call.inside for call in patient)
        for call in patient:
            call.ending.set()


async def step(callers: Callers, action: str, number: int) -> None:
    running = [call for call in callers.calls if not call.task.done()]
    match action:
        case "live" | "patient":
            callers.start(live=action == "live")
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
