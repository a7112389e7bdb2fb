"""The walk over everything that is being played."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from listener.domain.change import Stream
from listener.domain.due import RunKind
from listener.domain.faults import (
    BatchRefusedError,
    LmlRefusedError,
    LmlUnavailableError,
    StoreUnavailableError,
)
from listener.domain.refreshing import Refreshed, RefreshStatus, RotationTally
from listener.engine.circuit import Circuit
from listener.engine.reconciler import RunHaltedError
from listener.engine.refresher import Refresher
from listener.engine.walker import Walker
from tests.unit.clock import eventually, now
from tests.unit.rotation import LIMITS, PlayedIdentities, Refreshes, Runs, Warming

SINCE = datetime(2026, 3, 1, tzinfo=UTC)
UNAVAILABLE = LmlUnavailableError("LML answered 503")


class Case:
    def __init__(self, identities: dict[int, bool], warming: Warming | None = None) -> None:
        self.warming = warming or Warming()
        self.refreshes = Refreshes()
        self.played = PlayedIdentities(identities)
        self.runs = Runs()
        self.tally = RotationTally()
        self.circuit = Circuit(Stream.ROTATION)
        refresher = Refresher(self.warming, self.refreshes)
        self.statuses = refresher.refreshed
        self.walker = Walker(
            played=self.played,
            refresher=refresher,
            runs=self.runs,
            min_coverage=0.99,
            circuit=self.circuit,
        )

    async def walk(self, *, force: bool = False) -> dict[str, int]:
        await self.walker.run(SINCE, cause="test", force=force, tally=self.tally)
        return self.counted

    @property
    def counted(self) -> dict[str, int]:
        return {name: count for name, count in self.tally.report().items() if count}

    @property
    def batches(self) -> list[int]:
        return [len(batch) for batch in self.warming.asked]

    def discogs_calls_in_any_minute(self) -> int:
        """Return the most identities new to LML that were asked within a minute, times four."""
        seen: set[int] = set()
        cost = []
        for at, batch in zip(self.warming.asked_at, self.warming.asked, strict=True):
            cost.append((at, 4 * len(set(batch) - seen)))
            seen.update(batch)
        return max(sum(c for at, c in cost if since <= at < since + 60) for since, _ in cost)


def warm(count: int) -> dict[int, bool]:
    return dict.fromkeys(range(1, count + 1), True)


def cold(count: int) -> dict[int, bool]:
    return dict.fromkeys(range(1, count + 1), False)


async def test_warm_rotation_is_walked_in_full_batches_back_to_back() -> None:
    case = Case(warm(310))
    began = now()
    assert await case.walk() == {
        "identities_scanned": 310,
        "identities_resolved": 310,
        "warmed_releases": 310,
        "warmed_artists": 930,
    }
    assert case.batches == [50, 50, 50, 50, 50, 50, 10]
    assert now() - began < 1
    assert case.tally.calls == 7


async def test_cold_rotation_is_walked_in_small_batches_within_the_budget() -> None:
    case = Case(cold(310), Warming(cold=0.8))
    began = now()
    await case.walk()
    assert case.tally.scanned == 310
    assert max(case.batches) <= 3
    assert case.discogs_calls_in_any_minute() <= 30
    assert now() - began < 90 * 60


async def test_unknown_rotation_stays_in_small_batches_although_it_is_warm() -> None:
    case = Case(cold(310))
    began = now()
    await case.walk()
    assert set(case.batches) == {3, 1}
    # As fast as the rate of calls allows.
    assert now() - began < 5 * 60


async def test_unexpectedly_cold_batch_is_not_followed_by_another() -> None:
    case = Case(warm(200), Warming(cold=4.8))
    await case.walk()
    assert case.batches[0] == 50
    assert max(case.batches[1:]) <= 3
    first_ended = case.warming.asked_at[0] + 50 * 4.8
    assert case.warming.asked_at[1] > first_ended + 60


async def test_walk_leaves_room_for_changes() -> None:
    case = Case(cold(50), Warming(cold=0.8))
    async with asyncio.TaskGroup() as tasks:
        walking = tasks.create_task(case.walk())
        await eventually(lambda: case.batches == [3] and case.warming.seen)
        await asyncio.sleep(10)
        assert case.refreshes.spent(known=False).cost <= 24
        walking.cancel()


async def test_identities_that_answered_lately_come_first_and_never_share_a_batch() -> None:
    case = Case({1: False, 2: True, 3: False, 4: True})
    await case.walk()
    assert case.warming.asked == [[2, 4], [1, 3]]


async def test_walk_over_nothing_is_not_recorded_as_a_run() -> None:
    case = Case({})
    assert await case.walk() == {}
    assert not case.runs.entered


async def test_walk_counts_all_identities_and_asks_about_unanswered_ones() -> None:
    case = Case(warm(10))
    case.played.answered = {2: RefreshStatus.WARMED, 5: RefreshStatus.NOT_FOUND}
    assert await case.walk() == {
        "identities_scanned": 10,
        "identities_resolved": 10,
        "warmed_releases": 8,
        "warmed_artists": 24,
        "not_found": 1,
    }
    assert case.warming.asked == [[1, 3, 4, 6, 7, 8, 9, 10]]
    assert await case.walker.count(SINCE) == 8


async def test_walk_after_all_have_answered_is_a_run_that_asks_nothing() -> None:
    case = Case(warm(2))
    case.played.answered = {1: RefreshStatus.WARMED, 2: RefreshStatus.WARMED}
    assert await case.walk() == {"identities_scanned": 2, "identities_resolved": 2}
    assert case.runs.ended == ["done"]
    assert not case.warming.asked


async def test_earlier_work_of_a_command_counts_once_and_stays_if_the_walk_refuses() -> None:
    case = Case(warm(3))
    case.tally.count(Refreshed(2, RefreshStatus.WARMED, releases=5))
    case.played.answered = {2: RefreshStatus.WARMED}
    case.played.covered = (1, 100)
    with pytest.raises(RunHaltedError):
        await case.walk()
    assert case.counted["identities_scanned"] == 1
    counted = await case.walk(force=True)
    assert (counted["identities_scanned"], counted["warmed_releases"]) == (3, 7)


async def test_walk_asks_about_identities_not_refreshed_in_its_slot() -> None:
    case = Case(warm(3))
    await case.walk()
    assert set(case.played.since) == {SINCE}
    assert case.runs.entered == [(RunKind.ROTATION, "test")]
    assert case.runs.ended == ["done"]
    assert case.runs.notes == 1


async def test_second_walk_is_refused_and_asks_nothing() -> None:
    case = Case(warm(3))
    case.runs.busy = True
    with pytest.raises(RunHaltedError, match="already running"):
        await case.walk()
    assert not case.warming.asked


async def test_low_coverage_refuses_the_walk_unless_forced() -> None:
    case = Case(warm(3))
    case.played.covered = (98, 100)
    with pytest.raises(RunHaltedError, match=r"98 of 100 .* 98\.0%.* 99\.0%.*--force"):
        await case.walk()
    assert not case.runs.entered
    assert await case.walk(force=True)
    case.played.covered = (99, 100)
    assert await case.walk()
    case.played.covered = (0, 0)
    assert await case.walk()


async def test_identity_in_error_is_tried_again_alone_and_counted_once() -> None:
    case = Case(warm(60), Warming({13: "error"}))
    began = now()
    counted = await case.walk()
    assert counted["identities_scanned"] == 60
    assert counted["identities_resolved"] == counted["warmed_releases"] == 59
    assert counted["lml_error"] == 1
    assert case.warming.asked[2:] == [[13], [13]]
    # Longer than LML pauses its calls to Discogs.
    assert now() - began > 20


async def test_failed_identity_counts_as_cold_when_it_is_retried() -> None:
    case = Case(warm(3), Warming({2: "error"}))
    await case.walk()
    assert [known for _, known, _ in case.refreshes.granted] == [True, False, False]


async def test_identity_that_recovers_is_counted_as_warmed() -> None:
    case = Case(warm(3), Warming({2: "error"}))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(case.walk())
        await eventually(lambda: case.refreshes.failures.get(2) == 1)
        case.warming.statuses.clear()
    assert case.counted["identities_scanned"] == case.counted["identities_resolved"] == 3


async def test_every_status_is_counted_by_its_rule() -> None:
    statuses = {1: "not_found", 2: "not_implemented", 3: "from_a_newer_lml", 4: "warmed"}
    case = Case(warm(5), Warming(statuses, silent=frozenset({5})))
    assert await case.walk() == {
        "identities_scanned": 5,
        "identities_resolved": 3,
        "warmed_releases": 1,
        "warmed_artists": 3,
        "not_found": 1,
        "not_implemented": 1,
        "lml_error": 2,
    }
    assert case.statuses == {
        "not_found": 1,
        "not_implemented": 1,
        "other": 1,
        "warmed": 1,
        "error": 3,
    }
    # Only the one that the reply left out is worth another try.
    assert case.warming.asked[1:] == [[5], [5]]


async def test_bad_identity_never_spoils_its_batch() -> None:
    case = Case(warm(100), Warming(poison=frozenset({77})))
    counted = await case.walk()
    assert counted["identities_resolved"] == 99
    assert counted["lml_error"] == 1


async def test_lml_that_refuses_every_batch_ends_the_walk_before_all_were_tried() -> None:
    case = Case(warm(100), Warming(fault=lambda _: BatchRefusedError("not of its form")))
    with pytest.raises(RunHaltedError):
        await case.walk()
    assert len(case.batches) < 40
    assert case.tally.with_status(RefreshStatus.ERROR) == case.tally.scanned > 0


async def test_lml_that_is_down_ends_the_walk_after_few_calls_and_counts_what_was_asked() -> None:
    case = Case(warm(100), Warming(fault=lambda _: UNAVAILABLE))
    with pytest.raises(RunHaltedError, match=r"gave up after 5 failures in a row.*503"):
        await case.walk()
    # All but the first only test whether LML is back.
    assert case.batches == [50, 1, 1, 1, 1]
    assert case.counted == {"identities_scanned": 54, "lml_error": 54}
    assert case.runs.ended == ["RunHaltedError"]


async def test_failed_call_among_others_is_repeated_later() -> None:
    case = Case(warm(150), Warming(fault=lambda call: UNAVAILABLE if call == 2 else None))
    counted = await case.walk()
    assert counted["identities_scanned"] == counted["identities_resolved"] == 150
    assert case.batches[:3] == [50, 50, 1]


async def test_refusal_ends_the_walk_at_once() -> None:
    refused = LmlRefusedError("LML answered 401")
    case = Case(warm(100), Warming(fault=lambda _: refused))
    with pytest.raises(RunHaltedError, match="401"):
        await case.walk()
    assert case.batches == [50]
    assert case.tally.with_status(RefreshStatus.ERROR) == 50


async def test_walk_waits_while_changes_find_lml_down() -> None:
    case = Case(warm(100))
    case.circuit.failed(UNAVAILABLE)
    began = now()
    await case.walk()
    assert case.warming.asked_at[0] >= began + 8
    assert case.batches[0] == 1


async def test_walk_whose_lock_is_lost_ends() -> None:
    case = Case(warm(100))
    case.runs.fault = StoreUnavailableError("the connection is closed")
    with pytest.raises(StoreUnavailableError):
        await case.walk()
    assert case.batches == [50]


async def test_calls_respect_the_rate_although_they_cost_nothing() -> None:
    case = Case(warm(310))
    case.refreshes.limits = replace(LIMITS, calls=5)
    began = now()
    await case.walk()
    assert max(case.batches) == 50
    # Four a minute: the fifth is left to changes.
    assert 59 < now() - began < 70


async def test_stopped_walk_ends_its_call_and_counts_what_it_tried(
    logged: list[MutableMapping[str, Any]],
) -> None:
    case = Case(warm(100), Warming({1: "error"}))
    async with asyncio.TaskGroup() as tasks:
        walking = tasks.create_task(case.walk())
        await eventually(lambda: case.tally.calls == 1)
        case.warming.gate.clear()
        await eventually(lambda: len(case.batches) == 2)
        walking.cancel()
    assert case.tally.scanned == 50
    assert case.tally.with_status(RefreshStatus.ERROR) == 1
    assert case.refreshes.spent(known=True).in_flight == 0
    assert case.runs.ended == ["CancelledError"]


@pytest.mark.parametrize("word", ["error", "from_a_newer_lml"])
async def test_identity_in_error_is_no_answer_and_not_warmed(word: str) -> None:
    case = Case(warm(3), Warming(dict.fromkeys((1, 2, 3), word)))
    assert await case.walk() == {"identities_scanned": 3, "lml_error": 3}
    assert not case.circuit.answered_since(timedelta(days=1))
    assert case.circuit.failures == 0


@pytest.mark.parametrize("word", ["warmed", "not_found", "not_implemented"])
async def test_identity_with_a_useful_status_is_an_answer(word: str) -> None:
    case = Case(warm(3), Warming(dict.fromkeys((1, 2, 3), word)))
    counted = await case.walk()
    assert (counted["identities_scanned"], counted["identities_resolved"]) == (3, 3)
    assert "lml_error" not in counted
    assert case.circuit.answered_since(timedelta(days=1))


async def test_refused_identity_is_counted_once_and_does_not_end_the_walk() -> None:
    case = Case(warm(3), Warming(poison=frozenset({2})))
    counted = await case.walk()
    assert counted["identities_scanned"] == 3
    assert (counted["identities_resolved"], counted["lml_error"]) == (2, 1)
    assert case.circuit.failures == 0


async def test_count_asks_nothing() -> None:
    case = Case(warm(7))
    assert await case.walker.count(SINCE) == 7
    assert not case.warming.asked
    assert not case.runs.entered


async def test_expected_number_of_identities_is_reported() -> None:
    case, expected = Case(warm(7)), list[int]()
    await case.walker.run(SINCE, cause="test", expect=expected.append)
    assert expected == [7]


async def test_shared_circuit_notes_failures_and_success() -> None:
    case = Case(warm(120), Warming(fault=lambda call: UNAVAILABLE if call == 2 else None))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(case.walk())
        await eventually(lambda: case.circuit.failures == 1)
        await eventually(lambda: case.circuit.failures == 0)
    assert case.circuit.paused_for() == timedelta()
