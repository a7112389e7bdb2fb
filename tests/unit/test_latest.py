"""The latest answers: what is kept of the last changes, and how much."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from listener.domain.change import Batch, Stream
from listener.domain.latest import (
    FAILED,
    KEPT,
    LatestAnswer,
    LatestAnswers,
    Origin,
    release_answer,
    rotation_answer,
    sources_of,
)
from listener.domain.question import Question
from listener.domain.refreshing import Played, RefreshStatus
from listener.domain.retrying import Failing, RetryPolicy
from listener.domain.verdict import Identity, Kind, Provenance, Verdict
from listener.engine.circuit import Circuit, Permits, Priority
from listener.engine.resolver import Resolver
from tests.unit.fakes import Library, Lml, Outbox, Verdicts

QUESTION = Question(7, "Stereolab", "Dots and Loops", None, b"")
CHANGED = Batch({7: (1,)}, {7: 10.0})
RETRIED = Batch({7: ()})
LASTING = Failing(2, lasting=timedelta(seconds=30), ago=timedelta())


def test_only_the_last_are_kept_and_numbers_grow() -> None:
    latest = LatestAnswers()
    one = release_answer(QUESTION, Kind.UNRESOLVED, CHANGED, 12.0)
    latest.note([one] * KEPT)
    latest.note([replace(one, outcome=FAILED)])
    kept = list(latest)
    assert [number for number, _ in kept] == list(range(KEPT + 1, 1, -1))
    assert kept[0][1].outcome == FAILED


@pytest.mark.parametrize(
    ("asked_before", "batch", "origin", "took"),
    [
        (False, CHANGED, Origin.ADDED, 2.5),
        (True, CHANGED, Origin.EDITED, 2.5),
        (True, RETRIED, Origin.RETRIED, 30.0),
    ],
)
def test_origin_and_duration_are_those_of_the_change(
    asked_before: bool, batch: Batch, origin: Origin, took: float
) -> None:
    question = replace(QUESTION, asked_before=asked_before, failing=LASTING)
    answer = release_answer(question, Kind.UNRESOLVED, batch, 12.5)
    assert (answer.origin, answer.took) == (origin, took)


def test_texts_are_cut() -> None:
    long = "x" * 1000
    question = replace(QUESTION, artist_name=long, album_title=long)
    played = Played(7, 1, 2, 3, known=True, artist=long, title=long)
    provenance = tuple(Provenance(f"{n}{long}", "exact", 1, "1") for n in range(20))
    identity = Identity("exact", 1, None, None, None, provenance)
    sources = sources_of(Verdict(7, Kind.SINGLE_ARTIST, identity))
    for answer in (
        release_answer(question, FAILED, CHANGED, 12.0, sources=sources, detail=long),
        rotation_answer(played, long, CHANGED, 12.0, detail=long),
    ):
        texts = (answer.artist, answer.title, answer.outcome, answer.detail, *answer.sources)
        assert max(len(text or "") for text in texts) == 128
        assert len(answer.sources) <= 8


def test_rotation_row_may_have_no_release() -> None:
    played = Played(7, 1, 2, None, known=True)
    answer = rotation_answer(played, RefreshStatus.WARMED, CHANGED, 12.0)
    assert (answer.origin, answer.library_id, answer.artist) == (Origin.ROTATION, None, None)
    assert answer.took == 2.0


async def handled(batch: Batch, lml: Lml) -> list[LatestAnswer]:
    outbox, permits = Outbox(), Permits(1)
    outbox.record(*batch.changes)
    resolver = Resolver(
        library=Library(),
        lml=lml,
        verdicts=Verdicts(outbox),
        outbox=outbox,
        permit=lambda: permits.hold(Priority.CHANGE),
        compilation_batch_size=100,
        policy=RetryPolicy(attempts=3, parked_for=timedelta(days=1)),
        circuit=Circuit(Stream.LIBRARY),
    )
    await resolver.handle(batch)
    return [answer for _, answer in resolver.latest]


async def test_verdicts_and_failures_are_noted_once_they_are_written() -> None:
    batch = Batch({1: (1,), 2: (2,)}, {1: 0.0, 2: 0.0})
    noted = await handled(batch, Lml(poison=frozenset({2})))
    assert {answer.library_id: answer.outcome for answer in noted} == {1: "unresolved", 2: FAILED}
    assert all(answer.detail for answer in noted if answer.outcome == FAILED)
