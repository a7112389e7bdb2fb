"""Reading LML's replies: whatever they contain, only valid verdicts come out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.adapters.lml.failures import MalformedReplyError
from listener.adapters.lml.results import read_reply
from listener.adapters.lml.wire import read_minted, read_refreshed, read_release
from listener.domain.judging import Invalid
from listener.domain.refreshing import Refreshed, RefreshStatus
from listener.domain.tracks import Credit, Tracks, gather
from listener.domain.verdict import Kind, Verdict
from tests.mutations import ODD, mutated

SINGLE_ARTIST: dict[str, Any] = {
    "library_id": 7,
    "kind": "single_artist",
    "main": {"wikidata_qid": "Q484464", "spotify_artist_id": None, "discogs_artist_id": 388},
    "method": "exact",
    "confidence": 0.97,
    "provenance": [
        {"source": "discogs", "method": "exact", "confidence": 0.9, "external_id": "388"},
        {"source": "spotify", "method": "search", "confidence": None, "external_id": None},
    ],
    "tracks": None,
}
ENTRY: dict[str, Any] = {
    "track_position": "A1",
    "artist_name": "Nico",
    "track_title": "Chelsea Girls",
    "resolved_artist_name": "Nico",
    "confidence": 0.8999999761581421,
    "method": "exact_match",
    "sources": [
        {"source": "discogs", "method": "exact_match", "confidence": 0.9, "external_id": "388"}
    ],
}
CREDIT = Credit("Nico", "Chelsea Girls", "A1", "Nico", 0.8999999761581421)
COMPILATION: dict[str, Any] = {
    "library_id": 8,
    "kind": "compilation",
    "main": None,
    "tracks_attempted": True,
    "tracks": [ENTRY, ENTRY | {"track_title": None}],
}

MUTATED = mutated(
    {
        "results": [SINGLE_ARTIST, COMPILATION],
        "tracks_contract_version": 1,
        "cache_stats": {"memory_hits": 1},
    }
)


def read_results(body: bytes) -> list[Verdict | Invalid]:
    return read_reply(body).results


def texts_of(verdict: Verdict) -> list[str]:
    identity = verdict.identity
    if identity is None:
        return []
    ids = [identity.wikidata_qid, identity.spotify_id, identity.apple_music_id]
    texts = [identity.method, *(text for text in ids if text is not None)]
    for entry in identity.provenance:
        texts += [entry.source, entry.method, entry.external_id]
    return texts


def confidences_of(verdict: Verdict) -> list[float]:
    if verdict.identity is None:
        return []
    return [verdict.identity.confidence, *(e.confidence for e in verdict.identity.provenance)]


def assert_sound(results: list[Verdict | Invalid]) -> None:
    for result in results:
        if isinstance(result, Verdict):
            assert type(result.library_id) is int
            assert -(2**31) <= result.library_id < 2**31
            assert all(0 <= confidence <= 1 for confidence in confidences_of(result))
            assert all(isinstance(text, str) and "\x00" not in text for text in texts_of(result))
        else:
            assert result.library_id is None or type(result.library_id) is int
            assert result.reason


def body(*results: object) -> bytes:
    return json.dumps({"results": results}).encode()


def changed(**fields: object) -> dict[str, Any]:
    return SINGLE_ARTIST | fields


@given(MUTATED)
def test_mutated_reply_yields_sound_verdicts_or_is_malformed(reply: object) -> None:
    try:
        results = read_results(json.dumps(reply).encode())
    except MalformedReplyError:
        assert not isinstance(reply, dict) or not isinstance(reply.get("results"), list)
        return
    assert isinstance(reply, dict)
    assert len(results) == len(reply["results"])
    assert_sound(results)


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_bytes_that_are_not_a_reply_are_malformed(noise: bytes) -> None:
    with pytest.raises(MalformedReplyError):
        read_results(noise)


@pytest.mark.parametrize(
    "cut",
    [b"", b"null", b"[]", b"{}", b'{"results": {}}', b'{"results": [', b"[" * 100_000, b"<html>"],
)
def test_reply_without_a_list_of_results_is_malformed(cut: bytes) -> None:
    for read in (read_results, read_refreshed):
        with pytest.raises(MalformedReplyError):
            read(cut)


def test_single_artist_is_read_in_our_terms() -> None:
    (verdict,) = read_results(body(SINGLE_ARTIST))
    assert isinstance(verdict, Verdict)
    assert verdict.identity is not None
    assert (verdict.library_id, verdict.kind) == (7, Kind.SINGLE_ARTIST)
    assert (verdict.identity.method, verdict.identity.confidence) == ("exact", 0.97)
    assert (verdict.identity.wikidata_qid, verdict.identity.spotify_id) == ("Q484464", None)
    assert [entry.source for entry in verdict.identity.provenance] == ["discogs"]
    assert verdict.skipped_sources == 1


def test_compilation_and_unresolved_need_only_their_kind() -> None:
    results = read_results(body(COMPILATION, {"library_id": 9, "kind": "unresolved"}))
    assert results == [Verdict(8, Kind.COMPILATION), Verdict(9, Kind.UNRESOLVED)]


def test_fields_of_a_newer_lml_are_ignored() -> None:
    (verdict,) = read_results(body(changed(mood="blue", main={"tidal_id": 3})))
    assert isinstance(verdict, Verdict)


@pytest.mark.parametrize("provenance", [None, []])
def test_single_artist_without_evidence_is_a_verdict(provenance: object) -> None:
    (verdict,) = read_results(body(changed(provenance=provenance)))
    assert isinstance(verdict, Verdict)
    assert verdict.skipped_sources == 0


@pytest.mark.parametrize("lacking", ["confidence", "external_id"])
def test_provenance_without_confidence_or_external_id_is_skipped_and_counted(lacking: str) -> None:
    entry = SINGLE_ARTIST["provenance"][0] | {lacking: None}
    (verdict,) = read_results(body(changed(provenance=[entry])))
    assert isinstance(verdict, Verdict)
    assert verdict.identity is not None
    assert verdict.identity.provenance == ()
    assert verdict.skipped_sources == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"confidence": 1.01},
        {"confidence": -0.1},
        {"confidence": float("nan")},
        {"confidence": float("inf")},
        {"confidence": "0.9"},
        {"confidence": True},
        {"confidence": None},
        {"method": None},
        {"method": "a\x00b"},
        {"method": 3},
        {"main": None},
        {"main": {"wikidata_qid": "Q\x00"}},
        {"main": {"spotify_artist_id": 4}},
        {"kind": "boxset"},
        {"kind": None},
        {"kind": ["compilation"]},
        {"provenance": {"source": "discogs"}},
        {"provenance": SINGLE_ARTIST["provenance"][:1] * 2},
        {"provenance": [SINGLE_ARTIST["provenance"][0] | {"confidence": 2}]},
        {"provenance": [SINGLE_ARTIST["provenance"][0] | {"external_id": "\x00"}]},
    ],
)
def test_malformed_part_fails_only_its_row(wrong: dict[str, Any]) -> None:
    first, second = read_results(body(changed(**wrong), COMPILATION))
    assert isinstance(first, Invalid)
    assert first.library_id == 7
    assert second == Verdict(8, Kind.COMPILATION)


@pytest.mark.parametrize("library_id", [None, "7", 7.0, True, [7], {}])
def test_result_without_a_whole_number_as_its_id_is_unattributed(library_id: object) -> None:
    (result,) = read_results(body(changed(library_id=library_id)))
    assert isinstance(result, Invalid)
    assert result.library_id is None


@pytest.mark.parametrize("item", [None, 7, "7", [], [7]])
def test_result_that_is_not_an_object_is_unattributed(item: object) -> None:
    (result,) = read_results(body(item))
    assert isinstance(result, Invalid)
    assert result.library_id is None


def test_reason_does_not_repeat_what_lml_sent() -> None:
    (result,) = read_results(body(changed(method=["Sleater-Kinney"], kind="Sleater-Kinney")))
    assert isinstance(result, Invalid)
    assert "Sleater" not in result.reason


CACHE_STATS: dict[str, Any] = {
    "memory_hits": 3,
    "pg_hits": 0,
    "pg_misses": 2,
    "api_calls": 1,
    "pg_time_ms": 12.5,
    "api_time_ms": 0.0,
}


@pytest.mark.parametrize("first", [COMPILATION, None])
def test_cache_stats_are_read_beside_the_results(first: object) -> None:
    reply = {"results": [first], "cache_stats": CACHE_STATS}
    assert read_reply(json.dumps(reply).encode()).cache_stats == CACHE_STATS


@pytest.mark.parametrize("first", [COMPILATION, None])
@pytest.mark.parametrize("wrong", [None, True, -1, -0.5, "3", [3], {}, 1e300, 10**30, 2**53 + 1])
def test_invalid_cache_stat_is_omitted(first: object, wrong: object) -> None:
    reply = {"results": [first], "cache_stats": CACHE_STATS | {"pg_hits": wrong, "else": 1}}
    read = read_reply(json.dumps(reply).encode())
    assert len(read.results) == 1
    assert read.cache_stats == {k: v for k, v in CACHE_STATS.items() if k != "pg_hits"}


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
def test_cache_stat_that_is_not_finite_is_left_out(number: bytes) -> None:
    reply = b'{"results": [], "cache_stats": {"pg_time_ms": %b, "pg_hits": 1}}' % number
    assert read_reply(reply).cache_stats == {"pg_hits": 1}


@given(ODD | st.dictionaries(st.sampled_from(sorted(CACHE_STATS)), ODD))
def test_junk_in_cache_stats_does_not_affect_the_results(junk: object) -> None:
    body = json.dumps({"results": [COMPILATION], "cache_stats": junk}).encode()
    read = read_reply(body)
    assert read.results == [Verdict(8, Kind.COMPILATION)]
    assert all(0 <= number < float("inf") for number in read.cache_stats.values())


def test_reply_without_cache_stats_has_none() -> None:
    assert read_reply(body(COMPILATION)).cache_stats == {}


def refresh_body(*items: object) -> bytes:
    return json.dumps({"results": items}).encode()


def test_refreshed_identities_are_read_and_malformed_ones_left_out() -> None:
    reply = refresh_body(
        {"identity_id": 1, "status": "warmed", "sources": None},
        {"identity_id": 2, "status": "from_a_newer_lml"},
        {"identity_id": "3", "status": "warmed"},
        {"identity_id": 4},
        {"identity_id": 5, "status": "a\x00"},
        {"identity_id": 2**31, "status": "warmed"},
        {"identity_id": True, "status": "warmed"},
        {"identity_id": 6, "status": "warmed", "sources": []},
        {"identity_id": 7, "status": "warmed", "sources": {"discogs_release": {"artists": "x"}}},
        {"identity_id": 8, "status": "warmed", "sources": {"discogs_release": {"artists": [3]}}},
        None,
        [],
    )
    assert read_refreshed(reply) == {
        1: Refreshed(1, RefreshStatus.WARMED),
        2: Refreshed(2, RefreshStatus.ERROR, word="from_a_newer_lml"),
    }


def test_successes_are_summed_over_sources_whatever_is_null_in_them() -> None:
    success, error = {"outcome": "success"}, {"outcome": "error", "message": None}
    reply = refresh_body(
        {
            "identity_id": 1,
            "status": "warmed",
            "message": None,
            "sources": {
                "discogs_release": {
                    "release_outcome": "success",
                    "artists": [success, error, success | {"external_id": "7"}, None, {}],
                },
                "discogs_master": {"release_outcome": "success", "artists": None},
                "musicbrainz_release": {"release_outcome": "not_implemented", "artists": []},
                "spotify_album": None,
                "bandcamp": {"release_outcome": None, "artists": [success]},
            },
        }
    )
    assert read_refreshed(reply) == {
        1: Refreshed(1, RefreshStatus.WARMED, releases=2, artists=3, parts=9),
    }


@pytest.mark.parametrize("status", RefreshStatus)
def test_every_status_is_read_in_our_terms(status: RefreshStatus) -> None:
    reply = refresh_body({"identity_id": 1, "status": str(status), "sources": None})
    assert read_refreshed(reply) == {1: Refreshed(1, status)}


def test_identity_with_two_conflicting_statuses_is_left_out() -> None:
    once, twice = {"identity_id": 1, "status": "warmed"}, {"identity_id": 2, "status": "warmed"}
    reply = refresh_body(once, once, twice, twice | {"status": "error"})
    assert read_refreshed(reply) == {1: Refreshed(1, RefreshStatus.WARMED)}


@given(ODD)
def test_junk_in_sources_affects_only_that_identity(junk: object) -> None:
    reply = refresh_body(
        {"identity_id": 1, "status": "warmed", "sources": junk},
        {"identity_id": 2, "status": "warmed", "sources": {"discogs_release": junk}},
        {"identity_id": 3, "status": "warmed"},
    )
    assert read_refreshed(reply)[3] == Refreshed(3, RefreshStatus.WARMED)


def test_minted_identity_is_read() -> None:
    assert read_minted(b'{"identity_id": 7, "kind": "release", "minted": false}') == 7


@pytest.mark.parametrize(
    "reply", [b"{}", b"[]", b"<html>", b'{"identity_id": "7"}', b'{"identity_id": 2147483648}']
)
def test_reply_without_a_minted_identity_is_malformed(reply: bytes) -> None:
    with pytest.raises(MalformedReplyError):
        read_minted(reply)


@pytest.mark.parametrize(
    ("health", "release"),
    [
        ({"version": "1.4.2", "commit_sha": "4be1f0a"}, "1.4.2 4be1f0a"),
        ({"version": "1.4.2", "commit_sha": None, "status": "healthy"}, "1.4.2"),
        ({"commit_sha": "4be1f0a"}, "4be1f0a"),
        ({"version": "", "commit_sha": ""}, None),
        ({"status": "healthy"}, None),
        ({"version": 7}, None),
        ({"version": "v" * 101}, None),
        ([], None),
    ],
)
def test_release_is_what_a_health_reply_names(health: object, release: str | None) -> None:
    assert read_release(json.dumps(health).encode()) == release


@pytest.mark.parametrize("noise", [b"", b"<html>", b'{"version": "1', b"\xff"])
def test_junk_health_reply_names_no_release(noise: bytes) -> None:
    assert read_release(noise) is None


def tracks_of(contract: object = 1, **fields: object) -> Tracks | None:
    """Read the tracks of a compilation with these fields."""
    result = {name: COMPILATION[name] for name in ("library_id", "kind", "main")} | fields
    reply = {"results": [result], "tracks_contract_version": contract}
    (verdict,) = read_results(json.dumps(reply).encode())
    assert isinstance(verdict, Verdict)
    assert verdict.kind is Kind.COMPILATION
    return verdict.tracks


@pytest.mark.parametrize(
    ("fields", "meaning"),
    [
        ({"tracks_attempted": None, "tracks": None}, None),
        ({}, None),
        ({"tracks_attempted": False, "tracks": []}, None),
        ({"tracks_attempted": False}, None),
        ({"tracks": []}, None),
        ({"tracks_attempted": True, "tracks": []}, Tracks()),
        ({"tracks_attempted": True, "tracks": None}, Tracks()),
        ({"tracks_attempted": True}, Tracks()),
        ({"tracks_attempted": True, "tracks": [ENTRY]}, Tracks(gather([CREDIT]))),
        # Not allowed by the contract, but read as visited.
        ({"tracks_attempted": False, "tracks": [ENTRY]}, Tracks(gather([CREDIT]))),
        # No state.
        ({"tracks_attempted": None, "tracks": [ENTRY]}, None),
        ({"tracks_attempted": "yes", "tracks": [ENTRY]}, None),
        ({"tracks_attempted": 1, "tracks": [ENTRY]}, None),
        ({"tracks_attempted": False, "tracks": [7]}, None),
    ],
)
def test_whether_tracks_were_visited_follows_from_what_lml_says(
    fields: dict[str, Any], meaning: Tracks | None
) -> None:
    assert tracks_of(**fields) == meaning


@pytest.mark.parametrize("contract", [None, 0, 2, "1", 1.0, True, [1], {"version": 1}])
def test_tracks_of_another_contract_are_not_read(contract: object) -> None:
    assert tracks_of(contract, tracks_attempted=True, tracks=[ENTRY]) is None


def test_missing_contract_counts_as_another_one() -> None:
    body = json.dumps({"results": [COMPILATION]}).encode()
    assert read_results(body) == [Verdict(8, Kind.COMPILATION)]


@pytest.mark.parametrize(
    "entry",
    [
        7,
        None,
        [],
        ["Nico"],
        {},
        ENTRY | {"artist_name": None},
        ENTRY | {"artist_name": 7},
        ENTRY | {"artist_name": "Ni\x00co"},
        ENTRY | {"track_title": "x" * 256},
        ENTRY | {"track_title": ["Chelsea Girls"]},
        ENTRY | {"track_position": 1},
        ENTRY | {"resolved_artist_name": "\x00"},
        ENTRY | {"confidence": "0.9"},
        ENTRY | {"confidence": True},
    ],
)
def test_malformed_entry_is_dropped_and_counted(entry: object) -> None:
    found = tracks_of(tracks_attempted=True, tracks=[entry, ENTRY])
    assert found == Tracks(gather([CREDIT]), invalid_entries=1)


@pytest.mark.parametrize("tracks", [7, "x", {}, {"0": ENTRY}, True])
def test_anything_but_a_list_counts_as_one_malformed_entry(tracks: object) -> None:
    assert tracks_of(tracks_attempted=True, tracks=tracks) == Tracks(invalid_entries=1)
    assert tracks_of(tracks_attempted=False, tracks=tracks) is None


@pytest.mark.parametrize("confidence", [1.5, -0.1, float("nan"), float("inf"), 10**300])
def test_confidence_outside_its_bounds_is_none_and_counted(confidence: float) -> None:
    found = tracks_of(tracks_attempted=True, tracks=[ENTRY | {"confidence": confidence}])
    assert found is not None
    (key,) = found.keys
    assert (key.confidence, found.invalid_confidences, found.invalid_entries) == (None, 1, 0)


def test_entry_may_leave_out_all_but_the_name() -> None:
    found = tracks_of(tracks_attempted=True, tracks=[{"artist_name": "Nico"}])
    assert found == Tracks(gather([Credit("Nico")]))


@pytest.mark.parametrize("kind", ["unresolved", "single_artist"])
def test_tracks_of_other_releases_are_ignored(kind: str) -> None:
    result = (SINGLE_ARTIST if kind == "single_artist" else {"library_id": 7, "kind": kind}) | {
        "tracks_attempted": True,
        "tracks": [ENTRY],
    }
    body = json.dumps({"results": [result], "tracks_contract_version": 1}).encode()
    (verdict,) = read_results(body)
    assert isinstance(verdict, Verdict)
    assert (verdict.kind, verdict.tracks) == (kind, None)


def test_malformed_result_beside_tracks_fails_only_its_row() -> None:
    reply = {"results": [COMPILATION, {"library_id": 9}], "tracks_contract_version": 1}
    good, bad = read_results(json.dumps(reply).encode())
    assert isinstance(good, Verdict)
    assert good.tracks is not None
    assert bad == Invalid(9, "kind: missing")
