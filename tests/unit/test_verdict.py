"""Invalid verdicts, changes and batches cannot be built."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.domain.change import Batch
from listener.domain.room import RoomLimits
from listener.domain.verdict import Identity, Kind, Provenance, Verdict

NOT_A_CONFIDENCE = [-0.001, 1.001, float("nan"), float("inf"), float("-inf")]


def identity(confidence: float = 0.9, provenance: tuple[Provenance, ...] = ()) -> Identity:
    return Identity("exact", confidence, None, None, None, provenance)


def evidence(source: str, confidence: float = 0.9) -> Provenance:
    return Provenance(source, "exact", confidence, "1")


@pytest.mark.parametrize("confidence", NOT_A_CONFIDENCE)
def test_confidence_outside_zero_to_one_cannot_be_built(confidence: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        identity(confidence)
    with pytest.raises(ValueError, match="not between 0 and 1"):
        evidence("discogs", confidence)


@pytest.mark.parametrize("confidence", [0, 0.0, 0.5, 1, 1.0])
def test_confidence_within_zero_to_one_can_be_built(confidence: float) -> None:
    assert identity(confidence, (evidence("discogs", confidence),)).confidence == confidence


def test_source_cannot_stand_twice_in_the_provenance() -> None:
    with pytest.raises(ValueError, match="twice"):
        identity(provenance=(evidence("discogs"), evidence("discogs", 0.1)))
    assert len(identity(provenance=(evidence("discogs"), evidence("spotify"))).provenance) == 2


def test_only_a_single_artist_has_an_identity() -> None:
    Verdict(1, Kind.SINGLE_ARTIST, identity())
    with pytest.raises(ValueError, match="cannot have the identity"):
        Verdict(1, Kind.SINGLE_ARTIST)
    for kind in (Kind.COMPILATION, Kind.UNRESOLVED):
        Verdict(1, kind)
        with pytest.raises(ValueError, match="cannot have the identity"):
            Verdict(1, kind, identity())


def test_empty_batch_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Batch({})


@given(
    st.dictionaries(
        st.integers(1, 9), st.lists(st.integers(1, 99), min_size=1).map(tuple), min_size=1
    ),
    st.frozensets(st.integers(1, 12)),
)
def test_batch_settles_all_entries_of_just_the_rows_asked_for(
    changes: dict[int, tuple[int, ...]], rows: frozenset[int]
) -> None:
    batch = Batch(changes)
    entries = batch.entries(rows)
    assert batch.row_ids == sorted(changes)
    assert entries == sorted(entries)
    assert len(entries) == sum(len(changes[row]) for row in rows & changes.keys())
    assert {row for _, row in entries} == rows & changes.keys()


@pytest.mark.parametrize(("batch_size", "capacity"), [(0, 10), (11, 10), (-1, 0)])
def test_room_that_could_never_fill_a_batch_cannot_be_built(batch_size: int, capacity: int) -> None:
    with pytest.raises(ValueError, match="must lie between 1 and the capacity"):
        RoomLimits(capacity, batch_size, timedelta(0), timedelta(0))
