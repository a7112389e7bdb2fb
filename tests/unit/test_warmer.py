"""Warming LML's caches for what is being played, as soon as it is."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from listener.domain.change import Batch
from listener.domain.faults import (
    CallBrokenOffError,
    LmlRefusedError,
    LmlUnavailableError,
    PageRefusedError,
)
from listener.domain.refreshing import LML_REFRESH_BATCH_CAP
from listener.engine.handling import Handled
from listener.engine.refresher import Refresher
from listener.engine.warmer import Warmer
from tests.unit.clock import now
from tests.unit.fakes import Outbox
from tests.unit.rotation import Refreshes, Rotation, Warming

Logged = list[MutableMapping[str, Any]]


class Case:
    def __init__(
        self, active: dict[int, int] | None = None, warming: Warming | None = None
    ) -> None:
        self.outbox = Outbox()
        self.warming = warming or Warming()
        self.refreshes = Refreshes()
        self.rotation = Rotation()
        for row, identity in (active or {}).items():
            self.rotation.play(row, identity, known=True)
        self.warmer = Warmer(
            rotation=self.rotation,
            warming=self.warming,
            refresher=Refresher(self.warming, self.refreshes),
            outbox=self.outbox,
            attempts=3,
        )

    async def handle(self, *rows: int) -> Handled:
        self.outbox.record(*rows)
        return await self.again()

    async def again(self) -> Handled:
        entries: dict[int, tuple[int, ...]] = {}
        for seq, row in self.outbox.entries.items():
            entries[row] = (*entries.get(row, ()), seq)
        return await self.warmer.handle(Batch(entries))

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
    assert await case.handle(1, 2, 3, 3) == Handled(settled=rows(1, 2, 3))
    assert case.warming.asked == [[10, 30]]
    assert not case.waiting
    assert case.counted == {
        "identities_scanned": 2,
        "identities_resolved": 2,
        "warmed_releases": 2,
        "warmed_artists": 6,
    }


async def test_rows_that_are_not_played_are_settled_without_asking() -> None:
    case = Case({})
    assert await case.handle(1, 2) == Handled(settled=rows(1, 2), unasked=rows(1, 2))
    assert not case.warming.asked
    assert not case.waiting


async def test_row_without_identity_and_discogs_release_is_settled_without_asking() -> None:
    case = Case({2: 20})
    case.rotation.play(1, album=77)
    assert await case.handle(1, 2) == Handled(settled=rows(1, 2), unasked=rows(1))
    assert case.warming.asked == [[20]]


async def test_full_batch_is_one_call_that_lml_accepts() -> None:
    case = Case({row: row + 1000 for row in range(LML_REFRESH_BATCH_CAP)})
    await case.handle(*range(LML_REFRESH_BATCH_CAP))
    assert [len(asked) for asked in case.warming.asked] == [50]


async def test_identity_whose_sources_all_failed_is_tried_again() -> None:
    case = Case({1: 10, 2: 20, 3: 20, 4: 40}, Warming({20: "error", 40: "not_found"}))
    assert await case.handle(1, 2, 3, 4) == Handled(rows(1, 4), failed=rows(2, 3))
    assert case.waiting == [2, 3]
    assert case.counted["identities_scanned"] == 2
    assert case.counted["not_found"] == 1


async def test_identity_that_keeps_failing_is_left_to_the_walk_and_counted_once(
    logged: Logged,
) -> None:
    case = Case({1: 10}, Warming({10: "error"}))
    assert (await case.handle(1)).failed == (await case.again()).failed == rows(1)
    assert (await case.again()).settled == rows(1)
    assert not case.waiting
    assert case.counted == {"identities_scanned": 1, "lml_error": 1}
    assert [event["event"] for event in logged] == ["identity left to the walk"]


async def test_unknown_status_is_an_error_told_once_and_not_tried_again(logged: Logged) -> None:
    case = Case({1: 10, 2: 20, 3: 30}, Warming({10: "deferred", 20: "deferred"}))
    assert (await case.handle(1, 2, 3)).settled == rows(1, 2, 3)
    assert case.counted["lml_error"] == 2
    assert [event["status"] for event in logged] == ["deferred"]


async def test_identity_that_the_reply_leaves_out_is_tried_again() -> None:
    case = Case({1: 10, 2: 20}, Warming(silent=frozenset({20})))
    assert await case.handle(1, 2) == Handled(rows(1), failed=rows(2))
    assert case.waiting == [2]


async def test_bad_identity_never_spoils_its_batch() -> None:
    active = {row: row + 1000 for row in range(LML_REFRESH_BATCH_CAP)}
    case = Case(active, Warming(poison=frozenset({1013})))
    assert await case.handle(*range(50)) == Handled(rows(*active) - {13}, failed=rows(13))
    assert case.waiting == [13]


async def test_nothing_is_settled_while_lml_is_unavailable() -> None:
    fault = LmlUnavailableError("ConnectError")
    case = Case({1: 10}, Warming(fault=lambda _: fault))
    case.rotation.play(2, release=5)
    assert await case.handle(1, 2) == Handled(fault=fault)
    assert case.waiting == [1, 2]
    assert not case.warming.minted


async def test_spent_budget_hands_rows_back_untried_within_a_second() -> None:
    case = Case({1: 10})
    case.refreshes.spent_by_others = 30
    began = now()
    assert await case.handle(1, 2) == Handled(settled=rows(2), unasked=rows(2))
    assert 0.9 < now() - began < 1.5
    assert case.waiting == [1]
    assert not case.warming.asked
    case.refreshes.spent_by_others = 0
    assert (await case.again()).settled == rows(1)


async def test_cold_batch_is_asked_as_far_as_the_budget_goes() -> None:
    case = Case(warming=Warming(cold=0.8))
    for row in range(20):
        case.rotation.play(row, row + 100)
    handled = await case.handle(*range(20))
    assert handled.settled == rows(*range(7))
    assert case.warming.asked == [[*range(100, 107)]]
    assert len(case.waiting) == 13


async def test_row_that_lacks_its_identity_has_it_minted_written_and_warmed() -> None:
    case = Case()
    case.rotation.play(1, release=5)
    case.rotation.play(2, release=5)
    assert await case.handle(1, 2) == Handled(settled=rows(1, 2))
    assert case.warming.minted == [5]
    assert case.warming.asked == [[1005]]
    assert case.rotation.rows[1].identity_id == 1005
    assert case.warmer.mints == {"minted": 2, "raced": 0}


async def test_lost_race_is_counted_and_left_to_the_change_that_won() -> None:
    case = Case()
    case.rotation.play(1, release=5)
    case.rotation.faster = {1}
    assert await case.handle(1) == Handled(settled=rows(1))
    assert case.warmer.mints == {"minted": 0, "raced": 1}
    assert not case.warming.asked


async def test_row_that_is_locked_is_tried_again() -> None:
    case = Case()
    case.rotation.play(1, release=5)
    case.rotation.play(2, release=6)
    case.rotation.locked = {1}
    assert await case.handle(1, 2) == Handled(settled=rows(2), late=rows(1))
    assert case.waiting == [1]


async def test_release_that_cannot_be_minted_never_holds_up_others(logged: Logged) -> None:
    case = Case(warming=Warming(mint_faults={5: PageRefusedError("LML answered 422")}))
    case.rotation.play(1, release=5)
    case.rotation.play(2, release=6)
    assert await case.handle(1, 2) == Handled(settled=rows(1, 2))
    assert case.warming.asked == [[1006]]
    assert case.warmer.mints["refused"] == 1
    assert [event["event"] for event in logged] == ["identity cannot be minted"]


async def test_lml_without_the_route_to_mint_warms_all_the_same() -> None:
    case = Case({1: 10}, Warming(mint_faults={5: LmlRefusedError("LML answered 404")}))
    case.rotation.play(2, release=5)
    assert await case.handle(1, 2) == Handled(settled=rows(1), failed=rows(2))
    assert case.waiting == [2]


async def test_what_was_done_before_lml_went_stays_done() -> None:
    fault = LmlUnavailableError("LML answered 503")
    case = Case({1: 10}, Warming(mint_faults={6: fault}))
    case.rotation.play(2, release=5)
    case.rotation.play(3, release=6)
    assert await case.handle(1, 2, 3) == Handled(settled=rows(1, 2), fault=fault)
    assert case.waiting == [3]
    assert await case.again() == Handled(fault=fault)


async def test_release_that_lml_fails_at_as_a_whole_holds_nobody_up(logged: Logged) -> None:
    fault = CallBrokenOffError("LML answered 502")
    case = Case(warming=Warming(mint_faults={5: fault}))
    case.rotation.play(1, release=5)
    case.rotation.play(2, release=6)
    # It may be LML: nobody else is tried now.
    assert await case.handle(1, 2) == Handled(fault=fault)
    assert case.warming.minted == [5]
    assert await case.again() == Handled(settled=rows(1, 2))
    assert case.warming.minted == [5, 6, 5]
    assert +case.warmer.mints == {"minted": 1, "refused": 1}
    assert [event["event"] for event in logged] == ["identity cannot be minted"]
    # The next time it may be LML again.
    case.rotation.play(3, release=7)
    assert await case.handle(1, 3) == Handled(fault=fault)


async def test_release_is_not_blamed_while_no_other_is_minted() -> None:
    fault = CallBrokenOffError("LML answered 502")
    case = Case(warming=Warming(mint_faults={5: fault, 6: fault}))
    case.rotation.play(1, release=5)
    case.rotation.play(2, release=6)
    assert await case.handle(1, 2) == Handled(fault=fault)
    for _ in range(9):
        assert await case.again() == Handled(fault=fault)
    assert case.warmer.mints["refused"] == 0
    # One call a try.
    assert len(case.warming.minted) == 10
    # That it refreshes says nothing about minting.
    case.rotation.play(3, 30)
    assert await case.handle(3) == Handled(settled=rows(3), fault=fault)
    assert case.waiting == [1, 2]


async def test_fault_of_lml_is_told_though_rows_without_a_question_were_settled() -> None:
    fault = LmlUnavailableError("LML answered 503")
    case = Case({1: 10}, Warming(fault=lambda _: fault))
    assert await case.handle(1, 2) == Handled(settled=rows(2), unasked=rows(2), fault=fault)


async def test_releases_of_what_is_played_are_asked_about_before_anything_is_settled() -> None:
    fault = LmlUnavailableError("gone")
    case = Case(warming=Warming(fault=lambda _: fault))
    case.rotation.play(1, 10, album=8)
    case.rotation.play(2, 20, album=7)
    case.rotation.play(3, album=8)
    assert await case.handle(1, 2) == Handled(fault=fault)
    assert case.rotation.raised == [[7, 8]]
    assert case.waiting == [1, 2]


async def test_call_that_is_cancelled_counts_as_in_flight_no_more() -> None:
    case = Case({1: 10})
    case.warming.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        handling = tasks.create_task(case.handle(1))
        await asyncio.sleep(1)
        assert case.refreshes.spent(known=True).in_flight == 1
        handling.cancel()
    assert case.refreshes.spent(known=True).in_flight == 0
    assert case.waiting == [1]
