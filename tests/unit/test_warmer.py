"""Warming LML's caches for rotation rows as soon as they are played."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from listener.domain.change import Batch, BatchOutcome, Stream
from listener.domain.faults import (
    BatchRefusedError,
    CallInterruptedError,
    LmlRefusedError,
    LmlUnavailableError,
    StatementRefusedError,
)
from listener.domain.pacing import BreakerState
from listener.domain.refreshing import LML_REFRESH_BATCH_CAP, Played, Refreshed, RefreshStatus
from listener.domain.retrying import RetryPolicy
from listener.engine.circuit import Circuit
from listener.engine.refresher import Refresher
from listener.engine.warmer import Warmer
from tests.unit.clock import for_a_while, now
from tests.unit.rotation import Refreshes, Rotation, Warming

Logged = list[MutableMapping[str, Any]]


@dataclass
class CrashingWarming(Warming):
    """Raises an unforeseen exception at this release or identity."""

    crashing: int = 0

    async def refresh(self, identity_ids: Sequence[int]) -> Mapping[int, Refreshed]:
        said = await super().refresh(identity_ids)
        if self.crashing in identity_ids:
            raise KeyError(self.crashing)
        return said

    async def mint(self, discogs_release_id: int) -> int:
        minted = await super().mint(discogs_release_id)
        if discogs_release_id == self.crashing:
            raise KeyError(self.crashing)
        return minted


class PickyRotation(Rotation):
    """Refuses to fill batches that hold row 2."""

    async def fill(self, minted: Mapping[int, int], rows: Sequence[Played]) -> Mapping[int, bool]:
        if any(row.row_id == 2 for row in rows):
            message = "value out of range"
            raise StatementRefusedError(message)
        return await super().fill(minted, rows)


class Case:
    def __init__(
        self,
        active: dict[int, int] | None = None,
        warming: Warming | None = None,
        rotation: Rotation | None = None,
    ) -> None:
        self.warming = warming or Warming()
        self.refreshes = Refreshes()
        self.rotation = rotation or Rotation()
        self.outbox = self.rotation.outbox
        self.circuit = Circuit(Stream.ROTATION)
        for row, identity in (active or {}).items():
            self.rotation.play(row, identity, known=True)
        self.warmer = Warmer(
            rotation=self.rotation,
            warming=self.warming,
            refresher=Refresher(self.warming, self.refreshes),
            circuit=self.circuit,
            policy=RetryPolicy(attempts=3, parked_for=timedelta(days=180)),
        )

    async def handle(self, *rows: int) -> BatchOutcome:
        self.outbox.record(*rows)
        return await self.again()

    async def again(self) -> BatchOutcome:
        entries: dict[int, tuple[int, ...]] = {}
        for seq, row in self.outbox.entries.items():
            entries[row] = (*entries.get(row, ()), seq)
        return await self.warmer.handle(Batch(entries))

    async def retry(self, *rows: int) -> BatchOutcome:
        """Handle rows without a change in the outbox."""
        return await self.warmer.handle(Batch(dict.fromkeys(rows, ())))

    @property
    def failures(self) -> dict[int, int]:
        """How many times in a row each row that will be retried has failed."""
        failures = self.rotation.failures
        return {row: failures[row][2].retry.failures for row in sorted(failures)}

    @property
    def details(self) -> set[str]:
        return {failure.detail for failure in self.rotation.failed}

    @property
    def waiting(self) -> list[int]:
        return list(self.outbox.entries.values())

    @property
    def counted(self) -> dict[str, int]:
        return {name: n for name, n in self.warmer.tally.report().items() if n}


def rows(*row_ids: int) -> frozenset[int]:
    return frozenset(row_ids)


async def test_identities_of_active_rows_are_warmed_each_once() -> None:
    case = Case({1: 30, 2: 10, 3: 30})
    assert await case.handle(1, 2, 3, 3) == BatchOutcome(settled=rows(1, 2, 3))
    assert case.warming.asked == [[10, 30]]
    assert not case.waiting
    assert case.counted == {
        "identities_scanned": 2,
        "identities_resolved": 2,
        "warmed_releases": 2,
        "warmed_artists": 6,
    }


async def test_rows_out_of_rotation_are_settled_without_asking() -> None:
    case = Case({})
    assert await case.handle(1, 2) == BatchOutcome(settled=rows(1, 2), unasked=rows(1, 2))
    assert not case.warming.asked
    assert not case.waiting


async def test_row_without_identity_and_discogs_release_is_settled_without_asking() -> None:
    case = Case({2: 20})
    case.rotation.play(1, album=77)
    assert await case.handle(1, 2) == BatchOutcome(settled=rows(1, 2), unasked=rows(1))
    assert case.warming.asked == [[20]]


async def test_full_batch_is_one_call_that_lml_accepts() -> None:
    case = Case({row: row + 1000 for row in range(LML_REFRESH_BATCH_CAP)})
    await case.handle(*range(LML_REFRESH_BATCH_CAP))
    assert [len(asked) for asked in case.warming.asked] == [50]


async def test_identity_whose_sources_all_failed_is_tried_again() -> None:
    case = Case({1: 10, 2: 20, 3: 20, 4: 40}, Warming({20: "error", 40: "not_found"}))
    assert await case.handle(1, 2, 3, 4) == BatchOutcome(rows(1, 2, 3, 4), failed=rows(2, 3))
    assert not case.waiting
    assert case.failures == {2: 1, 3: 1}
    assert {failure.retry.after for failure in case.rotation.failed} == {timedelta(seconds=5)}
    assert case.details == {"LML could not refresh the identity"}
    assert case.counted["identities_scanned"] == 3
    assert (case.counted["not_found"], case.counted["lml_error"]) == (1, 1)


async def test_identity_that_recovers_is_forgotten_and_counted_as_warmed() -> None:
    case = Case({1: 10}, Warming({10: "error"}))
    await case.handle(1)
    case.warming.statuses.clear()
    assert await case.retry(1) == BatchOutcome(rows(1))
    assert not case.failures
    assert case.counted["identities_scanned"] == case.counted["identities_resolved"] == 1


async def test_identity_that_keeps_failing_is_left_to_the_walk_and_counted_once(
    logged: Logged,
) -> None:
    case = Case({1: 10, 2: 20}, Warming({10: "error"}))
    await case.handle(1)
    waits = []
    while case.failures:
        waits.append(case.rotation.failed[-1].retry.after)
        assert len(waits) < 30
        await for_a_while(waits[-1].total_seconds())
        # Other identities are still refreshed.
        await case.handle(2)
        await case.retry(1)
    seconds = [wait.total_seconds() for wait in waits]
    assert seconds[:10] == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560]
    assert set(seconds[10:]) == {3600}
    assert sum(seconds) >= 4 * 3600
    assert not case.waiting
    assert case.warmer.tally.with_status(RefreshStatus.ERROR) == 1
    assert [event["event"] for event in logged] == [
        *["rotation rows failed, retrying later"] * len(waits),
        "row left to the next walk",
    ]


async def test_identity_is_never_left_to_the_walk_while_nothing_else_is_answered() -> None:
    case = Case({1: 10}, Warming({10: "error"}))
    await case.handle(1)
    for failures in range(2, 100):
        await for_a_while(300.0)
        assert (await case.retry(1)).failed == rows(1)
        assert case.failures == {1: failures}
    assert case.rotation.failed[-1].retry.after == timedelta(minutes=5)
    assert case.counted == {"identities_scanned": 1, "lml_error": 1}


async def test_change_resets_the_failures_of_its_row() -> None:
    case = Case({1: 10}, Warming({10: "error"}))
    await case.handle(1)
    await case.retry(1)
    assert case.failures == {1: 2}
    await case.handle(1)
    assert case.failures == {1: 1}


async def test_row_that_is_no_longer_played_is_forgotten() -> None:
    case = Case({1: 10}, Warming({10: "error"}))
    await case.handle(1)
    case.rotation.rows.clear()
    assert await case.retry(1) == BatchOutcome(rows(1), unasked=rows(1))
    assert not case.failures


async def test_unknown_status_is_an_error_logged_once_and_not_tried_again(logged: Logged) -> None:
    case = Case({1: 10, 2: 20, 3: 30}, Warming({10: "deferred", 20: "deferred"}))
    assert await case.handle(1, 2, 3) == BatchOutcome(rows(1, 2, 3))
    assert case.counted["lml_error"] == 2
    assert [event["status"] for event in logged] == ["deferred"]


@pytest.mark.parametrize("word", ["error", "deferred", "warmed", "not_found"])
async def test_only_a_useful_status_is_an_answer(word: str) -> None:
    case = Case({1: 10}, Warming({10: word}))
    await case.handle(1)
    assert case.circuit.answered_since(timedelta(hours=1)) is (word in ("warmed", "not_found"))


async def test_identity_that_the_reply_leaves_out_is_tried_again() -> None:
    case = Case({1: 10, 2: 20}, Warming(silent=frozenset({20})))
    assert await case.handle(1, 2) == BatchOutcome(rows(1, 2), failed=rows(2))
    assert case.failures == {2: 1}


async def test_bad_identity_never_spoils_its_batch() -> None:
    active = {row: row + 1000 for row in range(LML_REFRESH_BATCH_CAP)}
    case = Case(active, Warming(poison=frozenset({1013})))
    assert await case.handle(*range(50)) == BatchOutcome(rows(*active), failed=rows(13))
    assert case.failures == {13: 1}
    assert case.circuit.failures == 0


async def test_nothing_is_settled_while_lml_is_unavailable() -> None:
    fault = LmlUnavailableError("ConnectError")
    case = Case({1: 10}, Warming(fault=lambda _: fault))
    case.rotation.play(2, release=5)
    assert await case.handle(1, 2) == BatchOutcome(fault=fault)
    assert case.waiting == [1, 2]
    assert not case.warming.minted
    assert not case.failures
    assert (case.circuit.state, case.circuit.fault) == (BreakerState.OPEN, fault)


async def test_spent_budget_hands_rows_back_untried_within_a_second() -> None:
    case = Case({1: 10})
    case.refreshes.spent_by_others = 30
    began = now()
    assert await case.handle(1, 2) == BatchOutcome(settled=rows(2), unasked=rows(2))
    assert 0.9 < now() - began < 1.5
    assert case.waiting == [1]
    assert not case.warming.asked
    case.refreshes.spent_by_others = 0
    assert (await case.again()).settled == rows(1)


async def test_cold_batch_is_asked_as_far_as_the_budget_allows() -> None:
    case = Case(warming=Warming(cold=0.8))
    for row in range(20):
        case.rotation.play(row, row + 100)
    handled = await case.handle(*range(20))
    # Four of the window's thirty calls each, and no more than four at a time.
    assert handled.settled == rows(*range(7))
    assert case.warming.asked == [[*range(100, 104)], [*range(104, 107)]]
    assert len(case.waiting) == 13


async def test_row_that_lacks_its_identity_has_it_minted_written_and_warmed() -> None:
    case = Case()
    case.rotation.play(1, release=5)
    case.rotation.play(2, release=5)
    assert await case.handle(1, 2) == BatchOutcome(settled=rows(1, 2))
    assert case.warming.minted == [5]
    assert case.warming.asked == [[1005]]
    assert case.rotation.rows[1].identity_id == 1005
    assert case.warmer.tally.mints == {"minted": 2, "raced": 0}


async def test_lost_race_is_counted_and_left_to_the_change_that_won() -> None:
    case = Case()
    case.rotation.play(1, release=5)
    case.rotation.faster = {1}
    assert await case.handle(1) == BatchOutcome(settled=rows(1))
    assert case.warmer.tally.mints == {"minted": 0, "raced": 1}
    assert not case.warming.asked
    # Minting counts as an answer, although another session wrote the identity.
    assert case.circuit.answered_since(timedelta(hours=1))


async def test_row_locked_by_another_session_is_retried() -> None:
    case = Case()
    case.rotation.play(1, release=5)
    case.rotation.play(2, release=6)
    case.rotation.locked = {1}
    assert await case.handle(1, 2) == BatchOutcome(rows(1, 2), failed=rows(1))
    assert case.failures == {1: 1}
    assert case.details == {"locked by another session"}
    case.rotation.locked.clear()
    assert await case.retry(1) == BatchOutcome(rows(1))
    assert not case.failures
    assert case.warming.asked == [[1006], [1005]]


@pytest.mark.parametrize("status", [422, 500])
async def test_release_that_cannot_be_minted_never_delays_others(
    status: int, logged: Logged
) -> None:
    case = Case(warming=Warming(mint_faults={5: BatchRefusedError(f"LML answered {status}")}))
    case.rotation.play(1, release=5)
    case.rotation.play(2, release=6)
    assert await case.handle(1, 2) == BatchOutcome(rows(1, 2), failed=rows(1))
    assert case.warming.asked == [[1006]]
    assert case.warmer.tally.mints["refused"] == 1
    assert case.failures == {1: 1}
    assert case.details == {f"LML answered {status}"}
    cannot, later = logged
    assert cannot["event"] == "identity cannot be minted"
    assert later == {
        "event": "rotation rows failed, retrying later",
        "log_level": "warning",
        "rows": [1],
        "count": 1,
        "reason": f"LML answered {status}",
    }
    assert case.circuit.failures == 0


async def test_release_that_cannot_be_minted_is_tried_again_after_growing_delays() -> None:
    case = Case(warming=Warming(mint_faults={5: BatchRefusedError("LML answered 500")}))
    case.rotation.play(1, release=5)
    await case.handle(1)
    for _ in range(7):
        await for_a_while(case.rotation.failed[-1].retry.after.total_seconds())
        assert await case.retry(1) == BatchOutcome(rows(1), failed=rows(1))
    waits = [failure.retry.after.total_seconds() for failure in case.rotation.failed]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    case.warming.mint_faults.clear()
    assert await case.retry(1) == BatchOutcome(rows(1))
    assert case.rotation.rows[1].identity_id == 1005
    assert not case.failures


async def test_lml_without_the_mint_route_still_warms(logged: Logged) -> None:
    refused = LmlRefusedError("LML answered 404")
    case = Case({1: 10}, Warming(mint_faults=dict.fromkeys((5, 6, 7), refused)))
    for row in (2, 3, 4):
        case.rotation.play(row, release=row + 3)
    assert await case.handle(1, 2, 3, 4) == BatchOutcome(rows(1, 2, 3, 4), failed=rows(2, 3, 4))
    assert case.warming.asked == [[10]]
    # There is no need to try the others.
    assert case.warming.minted == [5]
    assert case.failures == {2: 1, 3: 1, 4: 1}
    assert case.circuit.failures == 0
    events = [event["event"] for event in logged if event["log_level"] == "error"]
    assert events == ["identities cannot be minted"]
    # The next batch tries again.
    case.warming.mint_faults.clear()
    assert await case.retry(2, 3, 4) == BatchOutcome(rows(2, 3, 4))


async def test_work_done_before_lml_went_down_stays_done() -> None:
    fault = LmlUnavailableError("LML answered 503")
    case = Case({1: 10}, Warming(mint_faults={6: fault}))
    case.rotation.play(2, release=5)
    case.rotation.play(3, release=6)
    assert await case.handle(1, 2, 3) == BatchOutcome(settled=rows(1), fault=fault)
    assert case.rotation.rows[2].identity_id == 1005
    assert case.warmer.tally.mints["minted"] == 1
    assert case.waiting == [2, 3]
    assert await case.again() == BatchOutcome(settled=rows(2), fault=fault)
    assert case.warming.minted == [5, 6, 6]
    assert case.waiting == [3]


async def test_release_that_interrupts_its_calls_delays_no_other() -> None:
    fault = CallInterruptedError("LML answered 502")
    case = Case(warming=Warming(mint_faults={5: fault}))
    case.rotation.play(1, release=5)
    case.rotation.play(2, release=6)
    # LML may be at fault, so no other row is tried now.
    assert await case.handle(1, 2) == BatchOutcome(rows(1), failed=rows(1), fault=fault)
    assert case.warming.minted == [5]
    assert case.circuit.state is BreakerState.OPEN
    assert await case.again() == BatchOutcome(rows(2))
    assert case.circuit.failures == 0
    # Another row was answered since, so this release is at fault.
    await for_a_while(5.0)
    assert await case.retry(1) == BatchOutcome(rows(1), failed=rows(1))
    assert case.failures == {1: 2}
    assert case.circuit.failures == 0
    # No other row was answered since, so LML may be at fault again.
    await for_a_while(10.0)
    assert await case.retry(1) == BatchOutcome(rows(1), failed=rows(1), fault=fault)
    assert case.circuit.failures == 1


async def test_release_is_not_blamed_while_nothing_else_is_answered() -> None:
    fault = CallInterruptedError("LML answered 502")
    case = Case(warming=Warming(mint_faults={5: fault, 6: fault}))
    case.rotation.play(1, release=5)
    case.rotation.play(2, release=6)
    assert (await case.handle(1, 2)).fault == fault
    assert (await case.again()).fault == fault
    for _ in range(60):
        await for_a_while(300.0)
        assert (await case.retry(1, 2)).fault == fault
    # One call per attempt.
    assert len(case.warming.minted) == 62
    assert case.circuit.state is BreakerState.OPEN
    assert not case.warmer.tally.mints["refused"]
    assert case.failures.keys() == {1, 2}


async def test_interrupted_refresh_of_a_suspect_keeps_the_circuit_closed() -> None:
    case = Case({row: row * 10 for row in range(1, 13)}, Warming(deadly=frozenset({70})))
    outcome = await case.handle(*range(1, 13))
    assert outcome.failed == outcome.settled == rows(*range(1, 13))
    assert type(outcome.fault) is CallInterruptedError
    assert case.circuit.failures == 1
    case.rotation.play(99, 990, known=True)
    await case.handle(99)
    await for_a_while(5.0)
    asked = len(case.warming.asked)
    # In tens after the first failure, alone after the second.
    outcome = await case.retry(*range(1, 13))
    assert outcome == BatchOutcome(rows(*range(1, 13)), failed=rows(*range(1, 11)))
    assert [len(batch) for batch in case.warming.asked[asked:]] == [10, 2]
    await for_a_while(10.0)
    asked = len(case.warming.asked)
    outcome = await case.retry(*range(1, 11))
    assert outcome == BatchOutcome(rows(*range(1, 11)), failed=rows(7))
    assert [len(batch) for batch in case.warming.asked[asked:]] == [1] * 10
    assert case.circuit.failures == 0
    assert case.failures == {7: 3}


async def test_rows_that_failed_are_refreshed_after_those_that_did_not() -> None:
    case = Case({1: 10, 2: 20}, Warming({10: "error"}))
    await case.handle(1)
    case.warming.asked.clear()
    await case.warmer.handle(Batch({1: (), 2: ()}))
    assert case.warming.asked == [[20], [10]]


@pytest.mark.parametrize("crashing", [5, 1007, 30])
async def test_unforeseen_exception_is_isolated_to_its_row(crashing: int, logged: Logged) -> None:
    """Fails at minting the release of row 1, at warming what row 3 got, and at that of row 4."""
    bad = {5: 1, 1007: 3, 30: 4}[crashing]
    refused: dict[int, Exception] = {6: BatchRefusedError("LML answered 422")}
    case = Case({4: 30, 5: 40}, CrashingWarming(mint_faults=refused, crashing=crashing))
    for row in (1, 2, 3):
        case.rotation.play(row, release=row + 4)
    outcome = await case.handle(1, 2, 3, 4, 5)
    assert outcome == BatchOutcome(rows(1, 2, 3, 4, 5), failed=rows(2, bad))
    assert case.failures == {2: 1, bad: 1}
    assert case.details == {"LML answered 422", "unexpected KeyError"}
    assert not case.waiting
    assert case.circuit.failures == 0
    entries = [event for event in logged if event["event"].startswith("unexpected")]
    assert [(event["event"], event["exc_info"]) for event in entries] == [
        ("unexpected error, isolating its rows", True)
    ]


async def test_row_that_the_database_refuses_to_fill_fails_alone() -> None:
    case = Case(rotation=PickyRotation())
    for row in (1, 2, 3):
        case.rotation.play(row, release=row + 4)
    assert await case.handle(1, 2, 3) == BatchOutcome(rows(1, 2, 3), failed=rows(2))
    assert case.failures == {2: 1}
    assert case.details == {"value out of range"}


async def test_fault_of_lml_is_reported_although_rows_without_a_question_were_settled() -> None:
    fault = LmlUnavailableError("LML answered 503")
    case = Case({1: 10}, Warming(fault=lambda _: fault))
    assert await case.handle(1, 2) == BatchOutcome(settled=rows(2), unasked=rows(2), fault=fault)


async def test_releases_of_what_is_played_are_asked_about_before_anything_is_settled() -> None:
    fault = LmlUnavailableError("gone")
    case = Case(warming=Warming(fault=lambda _: fault))
    case.rotation.play(1, 10, album=8)
    case.rotation.play(2, 20, album=7)
    case.rotation.play(3, album=8)
    assert await case.handle(1, 2) == BatchOutcome(fault=fault)
    assert case.rotation.raised == [[7, 8]]
    assert case.waiting == [1, 2]


async def test_cancelled_call_no_longer_counts_as_in_flight() -> None:
    case = Case({1: 10})
    case.warming.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        handling = tasks.create_task(case.handle(1))
        await asyncio.sleep(1)
        assert case.refreshes.spent(known=True).in_flight == 1
        handling.cancel()
    assert case.refreshes.spent(known=True).in_flight == 0
    assert case.waiting == [1]
