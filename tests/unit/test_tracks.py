"""How several entries of LML are merged for one row, and how their questions are paged."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.domain.question import IncludeTracks, Question, batches
from listener.domain.tracks import Credit, TrackKey, Tracks, drifted, gather
from listener.domain.verdict import Kind, Verdict

NAMES = st.sampled_from(["Nico", "Low", "Can"])
CREDITS = st.builds(
    Credit,
    artist_name=NAMES,
    track_title=st.sampled_from([None, "", "1", "2"]),
    track_position=st.sampled_from([None, "", "A1", "A2", "4" * 21]),
    resolved_artist_name=st.none() | NAMES,
    confidence=st.sampled_from([None, 0, 0.5, 1]),
)


def one(*entries: Credit) -> TrackKey:
    (key,) = gather(entries)
    return key


def test_most_confident_entry_of_a_key_wins() -> None:
    entries = [
        Credit("Nico", "1", None, "Nico (2)", 0.4),
        Credit("Nico", "1", None, "Nico", 0.9),
        Credit("Nico", "1", None, "Nico (3)", None),
    ]
    assert one(*entries) == TrackKey("Nico", "1", "Nico", 0.9, None, 0)


def test_entry_that_names_an_artist_wins_over_one_that_does_not() -> None:
    known, unknown = Credit("Nico", "1", None, "Nico", 0.1), Credit("Nico", "1", None, None, 1)
    assert one(unknown, known).resolved_artist_name == "Nico"


def test_null_title_is_a_distinct_key() -> None:
    assert len(gather([Credit("Nico", None), Credit("Nico", ""), Credit("Nico", "1")])) == 3


@pytest.mark.parametrize(
    ("offered", "position", "count"),
    [
        ([], None, 0),
        ([None, ""], None, 0),
        (["A1", None, "A1"], "A1", 1),
        (["A1", "A2"], None, 2),
        (["1" * 20], "1" * 20, 1),
        (["1" * 21], None, 1),
        (["1" * 21, "A1"], None, 2),
    ],
)
def test_position_is_used_only_if_no_other_was_offered_and_it_fits(
    offered: Sequence[str | None], position: str | None, count: int
) -> None:
    key = one(*(Credit("Nico", "1", each) for each in [None, *offered]))
    assert (key.track_position, key.positions) == (position, count)


@given(st.lists(CREDITS), st.randoms())
def test_order_of_the_entries_does_not_matter(entries: list[Credit], random: Random) -> None:
    other = entries.copy()
    random.shuffle(other)
    keys = gather(entries)
    assert set(gather(other)) == set(keys)
    assert {(key.artist_name, key.track_title) for key in keys} == {
        (entry.artist_name, entry.track_title) for entry in entries
    }
    assert len({(key.artist_name, key.track_title) for key in keys}) == len(keys)


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan"), float("inf")])
def test_invalid_confidence_cannot_be_built(confidence: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        Credit("Nico", confidence=confidence)


def test_only_a_compilation_has_tracks() -> None:
    with pytest.raises(ValueError, match="cannot have tracks"):
        Verdict(1, Kind.UNRESOLVED, tracks=Tracks())


@pytest.mark.parametrize(
    ("keys", "unmatched", "does"),
    [(0, 0, False), (9, 9, False), (10, 10, True), (20, 10, True), (21, 10, False)],
)
def test_drift_requires_half_of_the_keys_and_at_least_ten(
    keys: int, unmatched: int, does: bool
) -> None:
    assert drifted(keys, unmatched) is does


def question(row: int, *, compilation: bool) -> Question:
    return Question(row, "Artist", "Album", None, b"", compilation)


@given(
    st.lists(st.booleans(), max_size=30),
    st.integers(1, 10),
    st.sampled_from(IncludeTracks),
)
def test_batches_hold_every_question_once(
    kinds: list[bool], size: int, include: IncludeTracks
) -> None:
    questions = [question(row, compilation=kind) for row, kind in enumerate(kinds)]
    found = list(batches(questions, size, include))
    rows = [asked.library_id for batch in found for asked in batch.questions]
    assert sorted(rows) == list(range(len(kinds)))
    for batch in found:
        assert batch.questions
        compilations = sum(asked.compilation for asked in batch.questions)
        assert compilations <= size
        match include:
            case IncludeTracks.OFF:
                assert not batch.with_tracks
            case IncludeTracks.ALL:
                assert batch.with_tracks
                assert len(batch.questions) <= size
            case IncludeTracks.COMPILATIONS:
                assert compilations in {0, len(batch.questions)}
                assert batch.with_tracks is bool(compilations)
