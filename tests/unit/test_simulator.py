"""The simulated LML's pure parts: verdicts, tracks, the Discogs budget; and the catalogue."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from listener.demo.catalogue import albums_tsv, releases
from listener.demo.choices import DemoOptions, UnfitError, catalogue_of
from listener.simulator import (
    DiscogsLimits,
    FaultName,
    Knowledge,
    Tracks,
    TrackStore,
    Wire,
    credits_of,
    delivery,
    entries_for,
    reply_faults,
    tracks_for,
    verdict_for,
)
from listener.simulator.discogs import DiscogsBudget
from listener.simulator.faults import Endpoint, Faults
from listener.simulator.replies import Answers
from listener.simulator.requests import BulkInput
from listener.simulator.verdicts import METHODS, SOURCES

NAMES = [f"Artist {number}" for number in range(2000)]


def row(library_id: int, artist_name: str, legacy_release_id: int | None = None) -> BulkInput:
    return {
        "library_id": library_id,
        "artist_name": artist_name,
        "album_title": "Blue Cellar",
        "legacy_release_id": legacy_release_id,
    }


def test_verdicts_are_the_same_in_another_process() -> None:
    program = (
        "import json; from listener.simulator import verdict_for;"
        "print(json.dumps([verdict_for(f'Artist {n}', 'Été') for n in range(50)]))"
    )
    output = subprocess.check_output([sys.executable, "-c", program])
    assert json.loads(output) == [verdict_for(f"Artist {n}", "Été") for n in range(50)]


def test_kinds_occur_in_the_given_shares() -> None:
    kinds = Counter(verdict_for(name, "x")["kind"] for name in NAMES)
    assert 0.55 < kinds["single_artist"] / len(NAMES) < 0.65
    assert 0.25 < kinds["unresolved"] / len(NAMES) < 0.35
    assert 0.07 < kinds["compilation"] / len(NAMES) < 0.13


@pytest.mark.parametrize("name", ["Various Artists", "various artists - rock", "V/A", " VA "])
def test_various_artists_are_always_a_compilation(name: str) -> None:
    assert verdict_for(name, "x", Knowledge(single_artist_share=1))["kind"] == "compilation"


def test_single_artists_are_complete_and_agree_with_their_provenance() -> None:
    lengths = Counter[int]()
    for name in NAMES:
        verdict = verdict_for(name, "x", Knowledge(single_artist_share=1))
        lengths[len(verdict["provenance"])] += 1
        assert verdict["method"] in METHODS
        assert 0 <= verdict["confidence"] <= 1
        sources = [entry["source"] for entry in verdict["provenance"]]
        assert sources == list(SOURCES[: len(sources)])
        assert verdict["main"]["discogs_artist_id"] == int(verdict["provenance"][0]["external_id"])
        assert sum(value is not None for value in verdict["main"].values()) == len(sources)
    assert set(lengths) == {1, 2, 3, 4, 5, 6}


def test_all_single_gives_every_artist_three_sources() -> None:
    knowledge = Knowledge(all_single=True)
    verdicts = [verdict_for(name, "x", knowledge) for name in [*NAMES[:50], "V/A"]]
    assert {(v["kind"], len(v["provenance"])) for v in verdicts} == {("single_artist", 3)}


def test_some_unresolved_have_searches_without_a_finding() -> None:
    unresolved = [v for name in NAMES if (v := verdict_for(name, "x"))["kind"] == "unresolved"]
    with_legs = [verdict for verdict in unresolved if verdict["provenance"]]
    assert 0 < len(with_legs) < len(unresolved) / 4
    assert all(leg["external_id"] is None for v in with_legs for leg in v["provenance"])


def test_another_version_and_overrides_change_verdicts() -> None:
    knowledge = Knowledge()
    changed = replace(knowledge, version="2")
    same = sum(verdict_for(n, "x", knowledge) == verdict_for(n, "x", changed) for n in NAMES)
    assert same < len(NAMES) / 2
    override = Knowledge(overrides={"Artist 1": {"kind": "single_artist", "confidence": 0.25}})
    verdict = verdict_for("Artist 1", "x", override)
    assert (verdict["kind"], verdict["confidence"]) == ("single_artist", 0.25)
    assert verdict["main"]["discogs_artist_id"]


def test_the_title_moves_the_confidence_only() -> None:
    knowledge = Knowledge(all_single=True)
    one, other = verdict_for("Ådå", "One", knowledge), verdict_for("Ådå", "Other", knowledge)
    assert one.pop("confidence") != other.pop("confidence")
    assert one == other


@pytest.mark.parametrize("omit_nulls", [True, False])
def test_replies_hold_the_expected_verdicts(omit_nulls: bool) -> None:
    answers = Answers(Knowledge(), Wire(omit_nulls=omit_nulls), TrackStore())
    inputs = [row(number, name) for number, name in enumerate(NAMES[:200], 1)]
    reply = json.loads(answers.bulk(inputs, with_tracks=False))
    for number, result in enumerate(reply["results"]):
        expected = {"library_id": number + 1} | verdict_for(NAMES[number], "Blue Cellar")
        if omit_nulls:
            expected = {k: v for k, v in expected.items() if v is not None}
            result.pop("main", None), expected.pop("main", None)
        assert result == expected


def test_tracks_show_each_state() -> None:
    store = TrackStore()
    states = Counter(
        (tracks.attempted, bool(tracks.entries))
        for number in range(1, 300)
        if (tracks := tracks_for(number, "compilation", store))
    )
    assert set(states) == {(False, False), (True, False), (True, True)}
    assert tracks_for(1, "unresolved", store) == Tracks(None, None)
    assert tracks_for(None, "compilation", store) == Tracks(attempted=False, entries=[])
    singles = {number: tracks_for(number, "single_artist", store) for number in range(1, 300)}
    assert set(map(str, singles.values())) == {str(Tracks(attempted=False, entries=[]))}
    fixed = Tracks(attempted=False, entries=[{"artist_name": "x"}])
    assert tracks_for(7, "compilation", TrackStore(overrides={7: fixed})) == fixed


def test_sources_of_a_track_are_of_the_form_of_the_provenance() -> None:
    resolved, miss = entries_for(7, 1)[0], entries_for(7, 1, resolved_share=0)[0]
    assert miss["sources"] == []
    for source in resolved["sources"]:
        assert source.keys() == {"source", "method", "confidence", "external_id"}
        assert (source["method"], source["confidence"]) == (
            resolved["method"],
            resolved["confidence"],
        )
    assert resolved["sources"]


def test_credits_are_distributed_as_in_production() -> None:
    counts = sorted(len(credits_of(number)) for number in range(1, 3001))
    assert 45 < sum(counts) / len(counts) < 67
    assert 350 < counts[int(len(counts) * 0.99)] < 650
    largest = credits_of(1, 2364)
    assert len({(credit.artist_name, credit.track_title) for credit in largest}) == 2364
    assert len(entries_for(1, 2364)) == 2364


def test_an_empty_bucket_waits_for_its_rate() -> None:
    budget = DiscogsBudget(DiscogsLimits(call_seconds=0.1, lane_width=2))
    grants = [budget.call(0.0) for _ in range(150)]
    assert max(grant.starts_at for grant in grants[:50]) < 3
    assert grants[-1].starts_at == pytest.approx(100 / 50 * 60, abs=5)


def test_the_lane_is_two_wide() -> None:
    budget = DiscogsBudget(DiscogsLimits(call_seconds=1.0))
    grants = [budget.call(0.0) for _ in range(6)]
    assert [grant.starts_at for grant in grants] == [0, 0, 1, 1, 2, 2]


def test_a_bucket_without_burst_keeps_every_minute_under_its_rate() -> None:
    budget = DiscogsBudget(DiscogsLimits(burst=1, browsing_a_minute=20))
    now = 0.0
    while now < 600:
        now = budget.call(now).ends_at
    budget.advance(600)
    assert 49 <= budget.busiest_minute() <= 51
    assert budget.browsing_calls == pytest.approx(200, abs=2)
    assert budget.longest_browsing_wait <= 2.5


def test_four_refusals_in_a_row_open_the_breaker_for_twenty_seconds() -> None:
    budget = DiscogsBudget(DiscogsLimits(call_seconds=0.5))
    budget.refusals_due = 4
    now = 0.0
    for _ in range(4):
        grant = budget.call(now)
        assert grant.status == 429
        now = grant.ends_at
    assert budget.is_open(now)
    assert budget.call(now + 19).status is None
    assert budget.calls == 4
    assert budget.call(now + 20).status == 200


def test_a_success_between_refusals_keeps_the_breaker_shut() -> None:
    budget = DiscogsBudget(DiscogsLimits())
    for now in range(0, 60, 4):
        budget.refusals_due = 3
        statuses = [budget.call(float(now)).status for _ in range(4)]
        assert statuses == [429, 429, 429, 200]


def test_discogs_refuses_above_its_own_ceiling() -> None:
    budget = DiscogsBudget(DiscogsLimits(ceiling=10, call_seconds=0.1))
    assert [budget.call(0.0).status for _ in range(12)] == [200] * 10 + [429] * 2


def test_every_fault_is_implemented_once() -> None:
    delivered, spoiled = delivery.implemented(), reply_faults.implemented()
    assert delivered | spoiled == set(FaultName) - {FaultName.SLOW}
    assert not delivered & spoiled


def test_faults_hit_what_they_are_aimed_at() -> None:
    faults = Faults()
    faults.add("status", endpoint="bulk", artist="Poison", calls=1)
    faults.add("hang", with_tracks=True)
    clean, guilty = [(1, "Fine")], [(1, "Fine"), (2, "The Poison Three")]
    assert faults.take(Endpoint.BULK, clean, with_tracks=False) is None
    assert faults.take(Endpoint.REFRESH, guilty, with_tracks=False) is None
    hit = faults.take(Endpoint.BULK, guilty, with_tracks=False)
    assert hit is not None
    assert hit.name == FaultName.STATUS
    assert faults.take(Endpoint.BULK, guilty, with_tracks=False) is None
    assert faults.take(Endpoint.BULK, clean, with_tracks=True) is not None
    faults.clear("hang")
    assert not faults


def test_chances_are_seeded() -> None:
    def hits(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.add("status", probability=0.5)
        return [bool(faults.take(Endpoint.BULK, (), with_tracks=False)) for _ in range(100)]

    assert hits(1) == hits(1) != hits(2)
    assert 30 < sum(hits(1)) < 70


def test_the_catalogue_is_the_same_for_a_seed_and_fits_its_columns() -> None:
    catalogue = list(releases(3000))
    assert catalogue == list(releases(3000)) != list(releases(3000, seed=2))
    for release in catalogue:
        assert 1 <= len(release.artist_name) <= 128
        assert 1 <= len(release.album_title) <= 128
        assert len(release.code_volume_letters or "") <= 4
        various = release.artist_name == "Various Artists"
        assert (release.code_volume_letters or "").startswith("Z") == various
    names = "".join(release.artist_name + release.album_title for release in catalogue)
    assert {"é", "ı", "夜", "Т", '"', "'", "🌊"} <= set(names)
    assert max(len(release.artist_name) for release in catalogue) == 128


OPTIONS = DemoOptions(
    seconds=60,
    latency=timedelta(),
    folder=None,
    albums=None,
    invented=None,
    keep_running=False,
    verbose=False,
)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("artist_name\talbum_title\nSun Ra\tLanquidity\nSun Ra", "line 3 has no album_title"),
        ("artist\talbum_title\nSun Ra\tLanquidity", "line 2 has no artist_name"),
    ],
)
def test_an_album_file_that_lacks_a_name_is_refused(tmp_path: Path, lines: str, said: str) -> None:
    path = tmp_path / "albums.tsv"
    path.write_text(lines)
    with pytest.raises(UnfitError, match=f"is not a list of albums: {said}"):
        catalogue_of(replace(OPTIONS, albums=path))


def test_an_album_file_is_read_and_cut(tmp_path: Path) -> None:
    path = tmp_path / "albums.tsv"
    title = "A \"Quoted' Title"
    path.write_text(
        f"artist_name\talbum_title\tyear\n{'x' * 200}\t{title}\t1999\nVarious Artists\tAll\t2001\n"
    )
    one, other = albums_tsv(path)
    assert (len(one.artist_name), one.album_title, one.code_volume_letters) == (128, title, "XX")
    assert other.code_volume_letters == "Z-A"
