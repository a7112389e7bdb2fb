"""Finding the items that spoil a batch."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import MutableMapping, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from listener.domain.faults import (
    BatchRefusedError,
    CallInterruptedError,
    LmlUnavailableError,
    StatementRefusedError,
    StoreUnavailableError,
)
from listener.engine.isolating import Refusals, isolate
from tests.unit.clock import virtually

Logged = list[MutableMapping[str, Any]]


class Attempts:
    """Refuses every part that holds a bad item; `refused` lists the parts that stayed refused."""

    def __init__(self, *bad: int, fault: Exception | None = None) -> None:
        self.bad = frozenset(bad)
        self.parts: list[list[int]] = []
        self.done: list[int] = []
        self.refused: list[list[int]] = []
        self.reasons: set[str] = set()
        self._fault = fault or BatchRefusedError("LML answered 422")

    async def attempt(self, part: Sequence[int]) -> None:
        self.parts.append(list(part))
        if not self.bad.isdisjoint(part):
            raise self._fault
        self.done += part

    def refuse(self, part: Sequence[int], reason: str) -> None:
        self.refused.append(list(part))
        self.reasons.add(reason)

    async def isolate(self, items: Sequence[int]) -> None:
        await isolate(items, self.attempt, self.refuse)

    @property
    def times(self) -> Counter[int]:
        return Counter(item for part in self.parts for item in part)


async def test_items_that_go_through_are_attempted_once_together() -> None:
    attempts = Attempts()
    await attempts.isolate(range(500))
    assert attempts.parts == [list(range(500))]
    assert not attempts.refused


async def test_nothing_to_isolate_is_attempted_without_error() -> None:
    attempts = Attempts()
    await attempts.isolate([])
    assert (attempts.parts, attempts.refused) == ([[]], [])


async def test_parts_are_attempted_in_their_order() -> None:
    attempts = Attempts(3)
    await attempts.isolate(range(16))
    assert attempts.parts == [
        list(range(16)),
        [0, 1],
        [2, 3],
        [2],
        [3],
        [4, 5],
        [6, 7],
        [8, 9],
        [10, 11],
        [12, 13],
        [14, 15],
    ]
    assert attempts.refused == [[3]]


@given(st.integers(1, 1000), st.integers(1, 3), st.randoms())
@example(500, 3, Random(1))
def test_three_bad_items_anywhere_are_refused_alone(size: int, count: int, random: Random) -> None:
    bad = random.sample(range(size), min(count, size))
    attempts = Attempts(*bad)
    virtually(attempts.isolate(range(size)))
    assert attempts.refused == [[item] for item in sorted(bad)]
    assert attempts.done == [item for item in range(size) if item not in bad]
    assert len(attempts.parts) <= (57 if size <= 512 else 64)
    assert max(attempts.times[item] for item in bad) <= (4 if size <= 512 else 5)
    assert max(attempts.times.values()) <= 5


@given(st.integers(0, 960))
@example(0)
@example(85)
@example(960)
def test_forty_bad_neighbours_anywhere_are_refused_alone(first: int) -> None:
    bad = range(first, first + 40)
    attempts = Attempts(*bad)
    virtually(attempts.isolate(range(1000)))
    assert attempts.refused == [[item] for item in bad]
    assert attempts.done == [item for item in range(1000) if item not in bad]
    assert max(attempts.times.values()) <= 5


@pytest.mark.parametrize("size", [1, 2, 8, 30, 50, 100, 500, 1000])
async def test_if_everything_is_refused_the_rest_is_refused_in_larger_parts(size: int) -> None:
    attempts = Attempts(*range(size))
    await attempts.isolate(range(size))
    assert [item for part in attempts.refused for item in part] == list(range(size))
    # Each split leaves at most seven parts over.
    assert len(attempts.parts) <= 66 + 4 * 7
    assert max(attempts.times.values()) <= 5
    if size <= 50:
        assert all(len(part) == 1 for part in attempts.refused)


async def test_answer_among_refusals_gives_the_others_another_chance() -> None:
    # Every tenth item goes through, so there are never many refusals in a row.
    attempts = Attempts(*(item for item in range(500) if item % 10))
    await attempts.isolate(range(500))
    assert all(len(part) == 1 for part in attempts.refused)
    assert attempts.done == list(range(0, 500, 10))


async def test_batch_is_split_once_after_others_were_refused() -> None:
    attempts, refusals = Attempts(*range(500)), Refusals(1000)
    await isolate(range(500), attempts.attempt, attempts.refuse, refusals)
    assert [len(part) for part in attempts.parts] == [500, *[63] * 7, 59]
    assert [len(part) for part in attempts.refused] == [*[63] * 7, 59]


async def test_part_that_goes_through_resets_the_count_of_refusals() -> None:
    attempts, refusals = Attempts(100), Refusals(1000)
    await isolate(range(500), attempts.attempt, attempts.refuse, refusals)
    assert attempts.refused == [[100]]
    assert refusals.in_a_row == 0


@pytest.mark.parametrize(
    "fault",
    [
        StoreUnavailableError("connection refused"),
        LmlUnavailableError("ConnectError"),
        CallInterruptedError("ReadTimeout"),
    ],
)
async def test_fault_of_a_service_is_raised_at_once(fault: Exception) -> None:
    attempts = Attempts(3, fault=fault)
    with pytest.raises(type(fault), match=str(fault)):
        await attempts.isolate(range(16))
    assert (len(attempts.parts), attempts.refused) == (1, [])


async def test_refusal_of_the_database_is_the_reason_given(logged: Logged) -> None:
    attempts = Attempts(3, fault=StatementRefusedError("value too long"))
    await attempts.isolate(range(16))
    assert (attempts.refused, attempts.reasons) == ([[3]], {"value too long"})
    assert not logged


async def test_unforeseen_exception_is_isolated_and_logged_once(logged: Logged) -> None:
    attempts = Attempts(3, 11, fault=KeyError("Broadcast"))
    await attempts.isolate(range(16))
    assert attempts.refused == [[3], [11]]
    # The exception's message may contain row data.
    assert attempts.reasons == {"unexpected KeyError"}
    (event,) = logged
    assert event["event"] == "unexpected error, isolating its rows"
    assert (event["log_level"], event["exc_info"], event["rows"]) == ("error", True, 16)


async def test_cancellation_does_not_count_as_a_refusal() -> None:
    async def attempt(part: Sequence[int]) -> None:
        await asyncio.sleep(10.0)

    attempts = Attempts()
    async with asyncio.TaskGroup() as tasks:
        isolating = tasks.create_task(isolate(range(16), attempt, attempts.refuse))
        await asyncio.sleep(1.0)
        isolating.cancel()
    assert isolating.cancelled()
    assert not attempts.refused
