"""Warming LML's caches for what is being played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from listener.domain.change import Batch
from listener.domain.faults import LmlUnavailableError, PageRefusedError
from listener.engine.handling import Handled
from listener.engine.warmer import LML_REFRESH_BATCH_CAP, Warmer
from tests.unit.fakes import Outbox


@dataclass
class Rotation:
    """Active rotation rows with the identity of each."""

    active: dict[int, int]

    async def identities(self, row_ids: Sequence[int]) -> Mapping[int, int]:
        return {row: self.active[row] for row in row_ids if row in self.active}


@dataclass
class Warming:
    """Says of each identity what `statuses` says, else that it is warmed."""

    statuses: dict[int, str] = field(default_factory=dict)
    silent: frozenset[int] = frozenset()
    fault: Exception | None = None
    asked: list[list[int]] = field(default_factory=list)

    async def warm(self, identity_ids: Sequence[int]) -> Mapping[int, str]:
        self.asked.append(list(identity_ids))
        if self.fault is not None:
            raise self.fault
        return {i: self.statuses.get(i, "warmed") for i in identity_ids if i not in self.silent}


class Case:
    def __init__(self, active: dict[int, int], warming: Warming | None = None) -> None:
        self.outbox = Outbox()
        self.warming = warming or Warming()
        self.warmer = Warmer(Rotation(active), self.warming, self.outbox)

    async def handle(self, *rows: int) -> Handled:
        self.outbox.record(*rows)
        entries: dict[int, tuple[int, ...]] = {}
        for seq, row in self.outbox.entries.items():
            entries[row] = (*entries.get(row, ()), seq)
        return await self.warmer.handle(Batch(entries))

    @property
    def waiting(self) -> list[int]:
        return list(self.outbox.entries.values())


async def test_identities_of_active_rows_are_warmed_each_once() -> None:
    case = Case({1: 30, 2: 10, 3: 30})
    assert await case.handle(1, 2, 3, 3) == Handled(settled=frozenset({1, 2, 3}))
    assert case.warming.asked == [[10, 30]]
    assert not case.waiting
    assert case.warmer.statuses == {"warmed": 2}


async def test_rows_that_are_not_played_are_settled_without_asking() -> None:
    case = Case({})
    assert await case.handle(1, 2) == Handled(settled=frozenset({1, 2}))
    assert not case.warming.asked
    assert not case.waiting


async def test_full_batch_is_one_call_that_lml_accepts() -> None:
    case = Case({row: row + 1000 for row in range(LML_REFRESH_BATCH_CAP)})
    await case.handle(*range(LML_REFRESH_BATCH_CAP))
    assert [len(asked) for asked in case.warming.asked] == [50]


async def test_identity_whose_sources_all_failed_is_tried_again() -> None:
    case = Case({1: 10, 2: 20, 3: 20, 4: 40}, Warming({20: "error", 40: "not_found"}))
    assert await case.handle(1, 2, 3, 4) == Handled(frozenset({1, 4}), failed=frozenset({2, 3}))
    assert case.waiting == [2, 3]
    assert case.warmer.statuses == {"warmed": 1, "error": 1, "not_found": 1}


async def test_identity_that_the_reply_leaves_out_is_tried_again() -> None:
    case = Case({1: 10, 2: 20}, Warming(silent=frozenset({20})))
    assert await case.handle(1, 2) == Handled(frozenset({1}), failed=frozenset({2}))
    assert case.waiting == [2]


async def test_refused_page_fails_its_rows_and_settles_the_others() -> None:
    case = Case({1: 10}, Warming(fault=PageRefusedError("LML answered 422")))
    assert await case.handle(1, 2) == Handled(frozenset({2}), failed=frozenset({1}))
    assert case.waiting == [1]


async def test_nothing_is_settled_while_lml_is_unavailable() -> None:
    case = Case({1: 10}, Warming(fault=LmlUnavailableError("ConnectError")))
    with pytest.raises(LmlUnavailableError):
        await case.handle(1, 2)
    assert case.waiting == [1, 2]
