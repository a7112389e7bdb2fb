"""Rows that fail, over hours: when each is asked about, and which are blamed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.domain.change import Batch, Stream
from listener.domain.faults import BatchRefusedError, CallInterruptedError, LmlUnavailableError
from listener.domain.judging import Invalid
from listener.domain.question import Question
from listener.domain.retrying import ISOLATED, SUSPECT, RetryPolicy
from listener.domain.verdict import Verdict
from listener.engine.circuit import Circuit
from listener.engine.resolver import Resolver
from tests.unit import fakes
from tests.unit.clock import now, virtually
from tests.unit.fakes import Library, Outbox, Verdicts

MINUTE, HOUR = 60.0, 3600.0
ATTEMPTS = 8
# Rows from here on change one after another.
OTHERS = 100_000


@dataclass
class Lml(fakes.Lml):
    """Takes a second per batch; records when each row was asked about, and in which batch."""

    asked: dict[int, list[tuple[float, int]]] = field(default_factory=dict)

    async def resolve(self, questions: Sequence[Question]) -> Sequence[Verdict | Invalid]:
        for question in questions:
            self.asked.setdefault(question.library_id, []).append((now(), len(questions)))
        await asyncio.sleep(1.0)
        return await super().resolve(questions)


class Case:
    """The part of a daemon that handles changes and retries what failed, one batch at a time.

    Besides the rows of a test, another row changes every few seconds.
    """

    def __init__(self, lml: Lml | None = None, others_every: float | None = None) -> None:
        self.outbox = Outbox()
        self.lml = lml or Lml()
        self.verdicts = Verdicts(self.outbox)
        self.ledger = self.verdicts.ledger
        self.circuit = Circuit(Stream.LIBRARY)
        self.opened = 0
        self._others_every = others_every
        self._other, self._next_other = OTHERS, 0.0
        self._resolver = Resolver(
            library=Library(ledger=self.ledger),
            lml=self.lml,
            verdicts=self.verdicts,
            outbox=self.outbox,
            permit=nullcontext,
            compilation_batch_size=100,
            policy=RetryPolicy(ATTEMPTS, timedelta(days=180)),
            circuit=self.circuit,
        )

    async def go_on(self, seconds: float, until: Callable[[], object] = lambda: False) -> None:
        """Work for some seconds, or until a fact is true."""
        end = now() + seconds
        while now() < end and not until():
            self._change_others()
            if quiet := self.circuit.paused_for():
                await asyncio.sleep(quiet.total_seconds())
            elif rows := self._due():
                failures = self.circuit.failures
                most = self.circuit.begin_trial()
                await self._resolver.handle(Batch(dict(list(rows.items())[:most])))
                self.opened += self.circuit.failures > failures == 0
            else:
                times = [end, *self.ledger.due_at().values()]
                if self._others_every is not None:
                    times.append(self._next_other)
                await asyncio.sleep(min(times) - now())

    def _change_others(self) -> None:
        if self._others_every is not None and self._next_other <= now():
            self.outbox.record(self._other)
            self._other += 1
            self._next_other = now() + self._others_every

    def _due(self) -> dict[int, tuple[int, ...]]:
        rows: dict[int, tuple[int, ...]] = {}
        for seq, row in self.outbox.entries.items():
            rows[row] = (*rows.get(row, ()), seq)
        due = self.ledger.due(500, suspects=True) or self.ledger.due(500, suspects=False)
        return rows or dict.fromkeys(due, ())

    @property
    def suspicions(self) -> set[int]:
        return {failure.suspicion for _, _, failure in self.ledger.entries.values()}

    @property
    def parked(self) -> set[int]:
        entries = self.ledger.entries.items()
        return {row for row, (_, _, failure) in entries if failure.retry.parked}

    @property
    def answered(self) -> set[int]:
        return {row for row in self.verdicts.written if row < OTHERS}

    @property
    def calls(self) -> int:
        """The number of calls that were not only about other rows."""
        return sum(min(batch) < OTHERS for batch in self.lml.batches)


@pytest.mark.parametrize("others_every", [10.0, None])
@pytest.mark.parametrize("deadly", [1, 7, 250, 493, 500])
async def test_row_on_which_lml_fails_is_isolated_within_forty_calls(
    deadly: int, others_every: float | None
) -> None:
    case = Case(Lml(deadly=frozenset({deadly})), others_every)
    case.outbox.record(*range(1, 501))
    await case.go_on(5 * MINUTE, until=lambda: case.suspicions == {ISOLATED})
    assert case.ledger.entries.keys() == {deadly}
    assert case.answered == set(range(1, 501)) - {deadly}
    assert case.calls <= 40
    assert case.opened == 0


@pytest.mark.parametrize("others_every", [10.0, None])
@pytest.mark.parametrize("first", [1, 7, 245, 489])
@pytest.mark.parametrize("many", [2, 5, 12])
async def test_rows_that_crash_lml_do_not_delay_others(
    many: int, first: int, others_every: float | None
) -> None:
    deadly = frozenset(range(first, first + many))
    case = Case(Lml(deadly=deadly), others_every)
    case.outbox.record(*range(1, 501))
    rest = set(range(1, 501)) - deadly
    await case.go_on(2 * MINUTE, until=lambda: case.answered == rest)
    # At the very end there is no other row left whose answer could prove that LML is up.
    assert case.opened <= (first + many > 500)
    assert case.calls <= 80
    await case.go_on(HOUR)
    assert case.ledger.entries.keys() == deadly
    if others_every is not None:
        assert case.opened <= 3


async def test_row_on_which_lml_fails_delays_no_other_once_isolated() -> None:
    case = Case(Lml(deadly=frozenset({7})), others_every=10.0)
    case.outbox.record(*range(1, 501))
    began = now()
    await case.go_on(HOUR)
    assert case.ledger.entries.keys() == {7}
    assert case.suspicions == {ISOLATED}
    assert case.opened <= 1
    late = [size for at, size in case.lml.asked[7] if at > began + 5 * MINUTE]
    assert set(late) == {1}
    assert len(late) <= 5


@pytest.mark.parametrize(
    "fault",
    [CallInterruptedError("ReadTimeout"), LmlUnavailableError("ConnectError")],
    ids=["interrupted", "unavailable"],
)
async def test_no_row_is_blamed_while_lml_is_down_for_ten_minutes(
    fault: LmlUnavailableError,
) -> None:
    case = Case(Lml(fault=lambda call: fault), others_every=10.0)
    case.outbox.record(*range(1, 501))
    await case.go_on(10 * MINUTE)
    assert case.suspicions <= {SUSPECT}
    assert not case.parked
    assert not case.verdicts.written
    # Four attempts a minute.
    assert len(case.lml.batches) <= 4 * 10 + 2
    calls, began = len(case.lml.batches), now()
    case.lml.fault = lambda call: None
    await case.go_on(
        5 * MINUTE, until=lambda: not case.ledger.entries and len(case.answered) == 500
    )
    assert case.answered == set(range(1, 501))
    assert now() - began <= 5 * MINUTE
    # No row had to be isolated.
    assert len(case.lml.batches) - calls <= 60


@given(outage=st.floats(10, 20 * MINUTE), whole=st.booleans())
def test_every_row_recovers_within_the_length_of_the_outage(outage: float, *, whole: bool) -> None:
    fault = (
        LmlUnavailableError("LML answered 503") if whole else BatchRefusedError("LML answered 500")
    )

    async def go() -> None:
        case = Case(Lml(fault=lambda call: fault))
        case.outbox.record(*range(1, 21))
        await case.go_on(outage)
        assert not case.parked
        case.lml.fault = lambda call: None
        # Plus the first delay and the calls themselves.
        within = min(5 * MINUTE, outage + 5.0) + 90.0
        await case.go_on(within, until=lambda: len(case.answered) == 20)
        assert case.answered == set(range(1, 21))

    virtually(go())


@pytest.mark.parametrize("others_every", [10.0, None])
@pytest.mark.parametrize("kind", ["refused", "interrupted", "unanswered"])
async def test_row_is_asked_at_most_ten_times_in_ten_minutes(
    kind: str, others_every: float | None
) -> None:
    def reply(question: Question) -> list[Verdict | Invalid]:
        return [] if question.library_id == 123 else fakes.unresolved(question)

    bad = frozenset({123})
    lml = {
        "refused": Lml(poison=bad),
        "interrupted": Lml(deadly=bad),
        "unanswered": Lml(reply=reply),
    }[kind]
    case = Case(lml, others_every)
    case.outbox.record(*range(1, 501))
    await case.go_on(10 * MINUTE)
    assert 6 <= len(case.lml.asked[123]) <= 10
    assert case.answered == set(range(1, 501)) - bad


async def test_row_that_keeps_failing_among_others_is_parked_after_four_hours() -> None:
    case = Case(Lml(poison=frozenset({123})), others_every=5 * MINUTE)
    case.outbox.record(*range(1, 501))
    await case.go_on(4 * HOUR)
    assert not case.parked
    await case.go_on(2 * HOUR)
    assert case.parked == {123}
    asked = len(case.lml.asked[123])
    await case.go_on(24 * HOUR)
    assert len(case.lml.asked[123]) == asked


@pytest.mark.parametrize("deadly", [True, False])
async def test_row_that_keeps_failing_alone_is_never_parked(*, deadly: bool) -> None:
    bad = frozenset({1})
    case = Case(Lml(deadly=bad) if deadly else Lml(poison=bad))
    case.outbox.record(1)
    await case.go_on(24 * HOUR)
    assert not case.parked
    assert len(case.lml.asked[1]) > 24 * 11


async def test_lml_that_refuses_everything_parks_no_row_and_opens_no_circuit() -> None:
    case = Case(Lml(poison=frozenset(range(1, 201))))
    case.outbox.record(*range(1, 201))
    await case.go_on(5 * HOUR)
    assert not case.parked
    assert case.opened == 0
    case.lml.poison = frozenset()
    await case.go_on(10 * MINUTE, until=lambda: len(case.answered) == 200)
    assert case.answered == set(range(1, 201))
