"""Counts by outcome, and durations by size."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.domain.tally import Distribution, Skip, Tally
from listener.domain.tracks import TrackCount

MILLISECOND = timedelta(milliseconds=1)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.lists(st.sampled_from(Skip)))
def test_rows_scanned_are_the_sum_of_all_outcomes(
    resolved: int, compilations: int, unresolved: int, skips: list[Skip]
) -> None:
    tally = Tally(resolved, compilations, unresolved)
    for reason in skips:
        tally.skip(reason)
    counts = tally.fields()
    skipped = sum(count for name, count in counts.items() if name.startswith("rows_skipped."))
    found = counts["rows_resolved"] + counts["rows_resolved_compilation"]
    assert counts["scanned"] == resolved + compilations + unresolved + len(skips)
    assert counts["scanned"] == found + counts["rows_unresolved"] + skipped


def test_source_rows_and_missed_changes_are_not_counted_as_rows() -> None:
    tally = Tally(source_rows_skipped_null_confidence=3, capture_missed=2, lml_calls=5)
    tally.identities_withdrawn, tally.resolved_now_unresolved, tally.kept_manual = 6, 7, 8
    tally.lml_latency = timedelta(milliseconds=1234.6)
    assert tally.scanned == 0
    assert tally.fields() == {
        "scanned": 0,
        "rows_resolved": 0,
        "rows_resolved_compilation": 0,
        "rows_unresolved": 0,
        "source_rows_skipped_null_confidence": 3,
        "capture_missed": 2,
        "identities_withdrawn": 6,
        "resolved_now_unresolved": 7,
        "kept_manual": 8,
        "lml_total_calls": 5,
        "lml_total_latency_ms": 1235,
    }


def test_reason_that_did_not_occur_is_not_listed() -> None:
    tally = Tally()
    tally.skip(Skip.GONE, 0)
    tally.skip(Skip.MISMATCH, 2)
    listed = [name for name in tally.fields() if name.startswith("rows_skipped.")]
    assert listed == ["rows_skipped.lml_cardinality_mismatch"]


def every_count() -> Tally:
    """Make a tally in which no two counts are equal."""
    return Tally(
        resolved=101,
        resolved_compilations=106,
        unresolved=102,
        skipped=Counter({reason: number for number, reason in enumerate(Skip, 1)}),
        tracks=Counter({count: number for number, count in enumerate(TrackCount, 11)}),
        source_rows_skipped_null_confidence=103,
        capture_missed=104,
        lml_calls=105,
        identities_withdrawn=106,
        resolved_now_unresolved=107,
        kept_manual=108,
        lml_latency=timedelta(milliseconds=1234.6),
    )


NOT_COUNTERS = ("scanned", "rows_", "compilation_track_", "lml_total_latency")
OUTCOMES = {"resolved", "resolved_compilations", "unresolved"}


def test_every_count_besides_outcomes_has_a_meaning_and_is_reported() -> None:
    tally = every_count()
    counters = {name: count for name, meaning, count in tally.counters() if meaning}
    numbers = {each.name: getattr(tally, each.name) for each in fields(tally)}
    assert counters == {
        name: number
        for name, number in numbers.items()
        if isinstance(number, int) and name not in OUTCOMES
    }
    assert sorted(counters.values()) == sorted(
        count for name, count in tally.fields().items() if not name.startswith(NOT_COUNTERS)
    )


SKIPPED = {
    "compilation": 1,
    "null_artist": 2,
    "gone": 3,
    "already_answered": 4,
    "superseded": 5,
    "lml_cardinality_mismatch": 6,
    "lml_untrusted_library_id": 7,
    "lml_invalid": 8,
    "lml_error": 9,
    "writer_error": 10,
}


TRACKS = {
    "compilation_track_rows_written": 11,
    "compilation_track_rows_skipped_unchanged": 12,
    "compilation_track_rows_skipped_librarian": 13,
    "compilation_track_rows_skipped_no_cta_match": 14,
    "compilation_track_rows_skipped_no_catalog_artist": 15,
    "compilation_track_position_rows_written": 16,
    "compilation_track_position_rows_skipped_ambiguous": 17,
    "compilation_track_entries_invalid": 18,
    "compilation_track_confidences_invalid": 19,
}


def test_report_has_these_names() -> None:
    assert every_count().report() == {
        "scanned": 364,
        "rows_resolved": 101,
        "rows_resolved_compilation": 106,
        "rows_unresolved": 102,
        "rows_skipped": SKIPPED,
        "capture_missed": 104,
        "identities_withdrawn": 106,
        "resolved_now_unresolved": 107,
        "kept_manual": 108,
        "lml_total_calls": 105,
        "lml_total_latency_ms": 1235,
        "source_rows_skipped_null_confidence": 103,
        **TRACKS,
    }


def test_dry_report_has_these_names() -> None:
    assert every_count().dry_report() == {
        "scanned": 364,
        "lml_total_calls": 105,
        "lml_total_latency_ms": 1235,
        "would_resolve": 101,
        "would_resolve_compilation": 106,
        "would_unresolved": 102,
        "would_skip": SKIPPED,
        "source_rows_skipped_null_confidence": 103,
    }


def test_reports_name_every_reason_although_nothing_happened() -> None:
    zero = dict.fromkeys(SKIPPED, 0)
    assert Tally().report()["rows_skipped"] == zero
    assert Tally().dry_report()["would_skip"] == zero
    assert json.loads(json.dumps(Tally().report())) == Tally().report()


def test_failed_rows_are_those_without_a_usable_answer() -> None:
    assert every_count().failed == 6 + 7 + 8 + 9 + 10


def test_adding_a_tally_adds_every_count() -> None:
    total = Tally(resolved=1000, skipped=Counter({Skip.GONE: 1000}), lml_latency=MILLISECOND)
    part = every_count()
    total.add(part)
    total.add(part)
    assert part == every_count()
    assert total == Tally(
        resolved=1202,
        resolved_compilations=212,
        unresolved=204,
        tracks=Counter({count: 2 * number for count, number in part.tracks.items()}),
        skipped=Counter(
            {reason: 2 * count for reason, count in part.skipped.items()}
            | {Skip.GONE: 1000 + 2 * part.skipped[Skip.GONE]}
        ),
        source_rows_skipped_null_confidence=206,
        capture_missed=208,
        identities_withdrawn=212,
        resolved_now_unresolved=214,
        kept_manual=216,
        lml_calls=210,
        lml_latency=timedelta(milliseconds=1 + 2 * 1234.6),
    )


def test_difference_of_tallies_is_what_was_added() -> None:
    earlier = every_count()
    later = every_count()
    later.add(Tally(resolved=3, skipped=Counter({Skip.GONE: 2}), lml_latency=MILLISECOND))
    assert later.minus(earlier) == Tally(
        resolved=3, skipped=Counter({Skip.GONE: 2}), lml_latency=MILLISECOND
    )
    assert earlier == every_count()


def test_difference_from_itself_is_empty() -> None:
    assert every_count().minus(every_count()) == Tally()
    assert every_count().minus(Tally()) == every_count()


def test_copy_stays_as_it_is() -> None:
    tally = every_count()
    copy = tally.minus(Tally())
    tally.skip(Skip.GONE, 100)
    assert copy == every_count()


def test_no_durations_have_no_quantile_above_zero() -> None:
    assert Distribution().quantile(0.99) == timedelta()


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=60), st.floats(0.01, 1))
def test_quantile_is_right_to_six_percent(microseconds: list[int], share: float) -> None:
    distribution = Distribution()
    durations = sorted(timedelta(microseconds=value) for value in microseconds)
    distribution.add([duration.total_seconds() for duration in durations])
    exact = durations[-(-int(share * 1e9) * len(durations) // 10**9) - 1]
    found = distribution.quantile(share)
    assert exact - MILLISECOND / 1000 <= found <= exact * 1.06 + MILLISECOND / 1000
    assert distribution.count == len(durations)
    assert distribution.longest == durations[-1]


def test_clock_that_was_set_back_counts_as_no_time() -> None:
    distribution = Distribution()
    distribution.add([])
    distribution.add([-5])
    distribution.add([MILLISECOND.total_seconds()])
    assert distribution.quantile(0.5) <= timedelta(microseconds=1)
    assert distribution.longest == MILLISECOND


def test_memory_of_a_distribution_is_bounded() -> None:
    distribution = Distribution()
    distribution.add([number / 1000 for number in range(10_000)])
    assert distribution.quantile(0.5).total_seconds() == pytest.approx(5, rel=0.06)
    assert len(distribution._buckets) < 400  # noqa: SLF001 - its size is the promise
