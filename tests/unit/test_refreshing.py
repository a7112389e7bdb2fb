"""The outcome of each identity is counted once."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from listener.domain.refreshing import Refreshed, RefreshStatus, RotationTally

NAMES = {
    "identities_scanned",
    "identities_resolved",
    "warmed_releases",
    "warmed_artists",
    "not_found",
    "not_implemented",
    "lml_error",
}


def counted(*refreshed: Refreshed) -> dict[str, int]:
    tally = RotationTally()
    for each in refreshed:
        tally.count(each)
    return {name: count for name, count in tally.report().items() if count}


def test_report_always_has_every_name() -> None:
    assert RotationTally().report().keys() == NAMES


def test_warmed_identity_counts_its_releases_and_artists() -> None:
    assert counted(Refreshed(1, RefreshStatus.WARMED, releases=2, artists=5, parts=9)) == {
        "identities_scanned": 1,
        "identities_resolved": 1,
        "warmed_releases": 2,
        "warmed_artists": 5,
    }


def test_identities_without_a_source_still_count_as_resolved() -> None:
    assert counted(
        Refreshed(1, RefreshStatus.NOT_FOUND), Refreshed(2, RefreshStatus.NOT_IMPLEMENTED)
    ) == {
        "identities_scanned": 2,
        "identities_resolved": 2,
        "not_found": 1,
        "not_implemented": 1,
    }


def test_error_is_scanned_and_not_resolved_and_keeps_what_it_has_of_artists() -> None:
    assert counted(Refreshed(1, RefreshStatus.ERROR, artists=1, parts=3)) == {
        "identities_scanned": 1,
        "lml_error": 1,
        "warmed_artists": 1,
    }


def test_unknown_status_of_a_newer_lml_is_an_error_that_is_not_retried() -> None:
    newer = Refreshed(1, RefreshStatus.ERROR, word="deferred")
    assert counted(newer) == {"identities_scanned": 1, "lml_error": 1}
    assert not newer.worth_a_retry
    assert Refreshed(1, RefreshStatus.ERROR).worth_a_retry
    assert not Refreshed(1, RefreshStatus.NOT_FOUND).worth_a_retry


def test_identity_counts_once_by_its_latest_status() -> None:
    assert counted(
        Refreshed(1, RefreshStatus.ERROR), Refreshed(1, RefreshStatus.WARMED, releases=1, artists=3)
    ) == {
        "identities_scanned": 1,
        "identities_resolved": 1,
        "warmed_releases": 1,
        "warmed_artists": 3,
    }


def test_earlier_status_counts_only_without_a_later_one() -> None:
    tally = RotationTally()
    tally.count(Refreshed(1, RefreshStatus.WARMED, releases=1))
    tally.count_former(1, RefreshStatus.NOT_FOUND)
    tally.count_former(2, RefreshStatus.NOT_FOUND)
    report = tally.report()
    assert (report["identities_scanned"], report["not_found"]) == (2, 1)


@given(st.lists(st.sampled_from(RefreshStatus)))
def test_scanned_is_always_resolved_plus_failed(statuses: list[RefreshStatus]) -> None:
    tally = RotationTally()
    for number, status in enumerate(statuses):
        tally.count(Refreshed(number, status))
        report = tally.report()
        assert report["identities_scanned"] == number + 1
        assert report["identities_scanned"] == report["identities_resolved"] + report["lml_error"]


def test_fields_for_logs_and_runs_include_the_calls() -> None:
    fields = RotationTally(calls=7, latency=timedelta(seconds=0.75)).fields()
    assert fields.keys() - NAMES == {
        "refresh_calls",
        "refresh_latency_ms",
        "rows_minted",
        "mints_raced",
        "mints_refused",
    }
    assert (fields["refresh_calls"], fields["refresh_latency_ms"]) == (7, 750)
