"""The simulated LML over real HTTP: its contract, and that each fault really does what it says."""

from __future__ import annotations

import asyncio
import json
import math
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from listener.demo.catalogue import albums_tsv, fill, releases
from listener.simulator import (
    DiscogsLimits,
    Fault,
    FaultName,
    Health,
    IdentityMix,
    Knowledge,
    Latency,
    Simulator,
    Tracks,
    TrackStore,
    Wire,
    entries_for,
    simulator_process,
    simulator_thread,
    verdict_for,
)
from tests.integration.conftest import until

BULK = "/api/v1/identity/bulk-resolve-libraries"
REFRESH = "/api/v1/cache/refresh-for-identities"
MINT = "/api/v1/identity/resolve"
Broken = type[Exception] | tuple[type[Exception], ...]
MILLISECOND = timedelta(milliseconds=1)
# For an answer that never comes; to get through to the server may take its time.
SHORT = httpx.Timeout(5, read=0.05)


@pytest.fixture
def sim() -> Simulator:
    return Simulator(knowledge=Knowledge(all_single=True))


@pytest.fixture
def url(sim: Simulator) -> Iterator[str]:
    with simulator_thread(sim) as url:
        yield url


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=5) as client:
        yield client


def bulk(*names: str, tracks: bool = False, **fields: object) -> dict[str, Any]:
    rows = [
        {"library_id": place, "artist_name": name, "album_title": "Été", "legacy_release_id": place}
        for place, name in enumerate(names or ("Ada Mir", "Bo Sato", "李 Lund"), 1)
    ]
    return {"inputs": [row | fields for row in rows], "include_tracks": tracks}


async def results(http: httpx.AsyncClient, path: str = BULK, **body: object) -> list[Any]:
    reply = (await http.post(path, json=body or bulk())).raise_for_status()
    found: list[Any] = json.loads(reply.content)["results"]
    return found


@asynccontextmanager
async def held(sim: Simulator) -> AsyncIterator[None]:
    sim.gate.shut()
    try:
        yield
    finally:
        sim.gate.open()


async def test_results_come_in_order_with_the_expected_verdicts(
    sim: Simulator, http: httpx.AsyncClient
) -> None:
    sim.knowledge = Knowledge()
    names = [f"Artist {number}" for number in range(100)]
    reply = (await http.post(BULK, json=bulk(*names))).json()
    for place, result in enumerate(reply["results"]):
        assert result == {"library_id": place + 1} | verdict_for(names[place], "Été")
    assert reply["tracks_contract_version"] == 1
    assert isinstance(reply["cache_stats"]["memory_hits"], int)


async def test_duplicated_inputs_are_answered_twice(http: httpx.AsyncClient) -> None:
    one, other = await results(http, **bulk("Ada", "Ada", library_id=7))
    assert one == other


async def test_a_large_batch_is_answered(http: httpx.AsyncClient) -> None:
    assert len(await results(http, **bulk(*["Ada"] * 1000))) == 1000


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (BULK, bulk(*["Ada"] * 1001), 413),
        (BULK, {"inputs": []}, 422),
        (BULK, {}, 422),
        (BULK, b'{"inputs": [', 400),
        (BULK, b'{"inputs": "\\ud800"}', 400),
        (BULK, bulk("Ada", library_id=0), 422),
        (BULK, bulk("Ada", library_id="7"), 422),
        (BULK, bulk("Ada", album_title=None), 422),
        (BULK, bulk("Ada", library_id=2**31), 503),
        (BULK, bulk("Ada", legacy_release_id=2**31), 503),
        (BULK, bulk("A\x00da"), 500),
        (REFRESH, {"identity_ids": list(range(1, 52))}, 400),
        (REFRESH, {"identity_ids": []}, 422),
        (REFRESH, {"identity_ids": ["1"]}, 422),
        (REFRESH, {"identity_ids": [2**31]}, 503),
        (MINT, {"kind": "release", "source": "discogs_release", "external_id": "0"}, 422),
        (MINT, {"kind": "release", "source": "discogs_release", "external_id": "-7"}, 422),
        (MINT, {"kind": "release", "source": "discogs_release", "external_id": "07"}, 422),
        (MINT, {"kind": "release", "source": "discogs_release", "external_id": 7}, 422),
        ("/api/v1/elsewhere", {}, 404),
        ("/health", {}, 405),
    ],
)
async def test_bad_requests_are_refused(
    http: httpx.AsyncClient, path: str, body: dict[str, Any] | bytes, status: int
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body)
    reply = await http.post(path, content=content)
    assert reply.status_code == status
    if status == 500:
        assert reply.headers["content-type"].startswith("text/plain")
    else:
        assert reply.json()["message"]


async def test_an_invalid_input_is_echoed(sim: Simulator, http: httpx.AsyncClient) -> None:
    body = bulk("Ada", album_title=7)
    assert (await http.post(BULK, json=body)).json()["details"][0]["input"] == 7
    sim.wire = Wire(error_body="detail")
    assert (await http.post(BULK, json=body)).json()["detail"][0]["input"] == 7


async def test_the_edge_limits_bodies(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.max_body = 1000
    assert (await http.post(BULK, json=bulk("x" * 1000))).status_code == 413
    assert (await http.post(BULK, json=bulk("x"))).status_code == 200


@pytest.mark.parametrize(
    ("header", "status"), [(None, 401), ("Bearer wrong", 403), ("Bearer right", 200)]
)
async def test_the_token_is_checked(
    sim: Simulator, http: httpx.AsyncClient, header: str | None, status: int
) -> None:
    sim.api_key = "right"
    headers = {"authorization": header} if header else {}
    assert (await http.post(BULK, json=bulk(), headers=headers)).status_code == status
    assert (await http.get("/health")).status_code == 200
    assert sim.calls.recent("bulk")[0].had_token == (header is not None)


async def test_minting_is_idempotent(http: httpx.AsyncClient) -> None:
    body = {"kind": "release", "source": "discogs_release", "external_id": "12345"}
    replies = await asyncio.gather(*(http.post(MINT, json=body) for _ in range(10)))
    minted = [reply.json() for reply in replies]
    assert len({answer["identity_id"] for answer in minted}) == 1
    assert sum(answer["minted"] for answer in minted) == 1


async def test_health_has_its_states(sim: Simulator, http: httpx.AsyncClient) -> None:
    healthy = await http.get("/health")
    assert (healthy.status_code, healthy.json()["commit_sha"]) == (200, None)
    sim.health = Health("unhealthy", commit_sha="abc")
    ill = await http.get("/health")
    assert (ill.status_code, ill.json()["commit_sha"]) == (503, "abc")


async def test_tracks_have_their_states(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.knowledge = Knowledge(overrides={"None": {"kind": "unresolved"}})
    entries = entries_for(3, 2364)
    stored = {
        1: Tracks(attempted=False, entries=[]),
        2: Tracks(attempted=True, entries=[]),
        3: Tracks(attempted=True, entries=entries),
        4: Tracks(attempted=True, entries=entries),
    }
    sim.tracks = TrackStore(overrides=stored)
    found = await results(http, **bulk("V/A", "V/A", "V/A", "None", tracks=True))
    states = [(result["tracks_attempted"], result["tracks"]) for result in found]
    assert states == [(False, []), (True, []), (True, entries), (None, None)]
    assert "tracks" not in (await results(http, **bulk("V/A")))[0]


@pytest.mark.parametrize("version", [None, 1, 2])
async def test_the_contract_version_is_set(
    sim: Simulator, http: httpx.AsyncClient, version: int | None
) -> None:
    sim.wire = Wire(tracks_contract_version=version, omit_nulls=True, cache_stats=False)
    reply = (await http.post(BULK, json=bulk())).json()
    assert reply.get("tracks_contract_version") == version
    assert "cache_stats" not in reply
    assert ("tracks_contract_version" in reply) == (version is not None)


async def test_a_refreshed_identity_stays_warm(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.clock.change(10_000)
    sim.identities.mix = IdentityMix(
        overrides=dict.fromkeys(range(1, 11), "cold")
        | {11: "warm", 12: "tombstone", 13: "not_found", 14: "not_implemented", 15: "deferred"}
    )
    ids = list(range(1, 16))
    first = await results(http, REFRESH, identity_ids=ids)
    assert [item["identity_id"] for item in first] == ids
    assert [item["status"] for item in first[9:]] == [
        *["warmed"] * 3,
        "not_found",
        "not_implemented",
        "deferred",
    ]
    assert first[12]["sources"] is None
    fan_out = [len(item["sources"]["discogs_release"]["artists"]) for item in first[:10]]
    spent = sim.budget.calls
    assert spent == 10 + sum(fan_out) + 1
    assert await results(http, REFRESH, identity_ids=ids) == first
    assert sim.budget.calls == spent
    sim.identities.cool([1])
    await results(http, REFRESH, identity_ids=[1])
    assert sim.budget.calls == spent + 1 + fan_out[0]


async def test_an_open_breaker_turns_items_into_errors(
    sim: Simulator, http: httpx.AsyncClient
) -> None:
    sim.clock.change(1000)
    sim.identities.mix = IdentityMix(warm_share=0, tombstone_share=0)
    sim.budget.refusals_due = 4
    found = await results(http, REFRESH, identity_ids=list(range(1, 11)))
    assert {item["status"] for item in found} == {"error"}
    assert sim.budget.calls == 4


async def test_a_cold_batch_of_fifty_takes_about_three_simulated_minutes(
    sim: Simulator, http: httpx.AsyncClient
) -> None:
    sim.clock.change(1000)
    sim.identities.mix = IdentityMix(warm_share=0, tombstone_share=0)
    await results(http, REFRESH, identity_ids=list(range(1, 51)))
    times = sim.budget.call_times
    assert 180 <= len(times) <= 220
    assert times[-1] - times[0] == pytest.approx((len(times) - 50) / 50 * 60, abs=10)


async def test_past_five_permits_requests_queue(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.latency = Latency(per_row=10 * MILLISECOND)
    await asyncio.gather(*(http.post(BULK, json=bulk()) for _ in range(12)))
    assert (sim.calls.most_in_flight["bulk"], sim.most_at_work) == (12, 5)
    sim.permits = None
    async with held(sim), asyncio.TaskGroup() as tasks:
        for _ in range(12):
            tasks.create_task(results(http))
        await asyncio.to_thread(sim.calls.wait_for, 24)
        sim.gate.open()
    assert sim.most_at_work == 12


async def test_a_cold_refresh_holds_a_permit_that_bulk_needs(
    sim: Simulator, http: httpx.AsyncClient
) -> None:
    sim.permits = 1
    sim.identities.mix = IdentityMix(overrides={1: "cold"})
    sim.discogs = DiscogsLimits(call_seconds=0.02)
    async with asyncio.TaskGroup() as tasks:
        refresh = tasks.create_task(results(http, REFRESH, identity_ids=[1]))
        await asyncio.to_thread(sim.calls.wait_for, 1, "refresh")
        await results(http)
        assert sim.calls.recent("refresh")[0].finished_at is not None
    assert refresh.result()[0]["status"] == "warmed"


@pytest.mark.parametrize(("cold", "waits"), [(4, False), (5, True), (50, True)])
async def test_each_cold_identity_holds_a_permit_so_five_keep_a_question_waiting(
    sim: Simulator, http: httpx.AsyncClient, cold: int, waits: bool
) -> None:
    sim.identities.mix = IdentityMix(warm_share=0, tombstone_share=0)
    # Discogs' bucket is empty, and stays so.
    sim.discogs = DiscogsLimits(burst=1, calls_a_minute=0.001)
    async with asyncio.TaskGroup() as tasks:
        refresh = tasks.create_task(
            http.post(REFRESH, json={"identity_ids": list(range(1, cold + 1))})
        )
        await until(lambda: sim.permits_held == min(cold, 5))
        question = tasks.create_task(http.post(BULK, json=bulk("Ada")))
        if waits:
            await asyncio.to_thread(sim.calls.wait_for, 1)
            assert (await asyncio.wait((question,), timeout=0.2))[1]
        else:
            assert (await question).status_code == 200
        refresh.cancel()
        # Its caller left, so LML drops what it worked on for it.
        assert (await question).status_code == 200
    await until(lambda: sim.calls.statuses["refresh none"] == 1)


async def test_abandoned_question_loses_its_place(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.latency, sim.permits = Latency(per_row=200 * MILLISECOND), 1
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(http.post(BULK, json=bulk("Ada")))
        await until(lambda: sim.permits_held == 1)
        second = tasks.create_task(http.post(BULK, json=bulk("Bo")))
        await asyncio.to_thread(sim.calls.wait_for, 2)
        second.cancel()
        third = tasks.create_task(http.post(BULK, json=bulk("Cy")))
    assert (first.result().status_code, third.result().status_code) == (200, 200)
    await until(lambda: sim.calls.statuses == {"bulk 200": 2, "bulk none": 1})
    assert sim.most_at_work == 1


async def test_latency_grows_with_rows(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.latency = Latency(fixed=10 * MILLISECOND, per_row=MILLISECOND, jitter=MILLISECOND)
    await results(http, **bulk(*["Ada"] * 20))
    await asyncio.to_thread(sim.calls.wait_until_idle)
    (call,) = sim.calls.recent()
    assert call.finished_at is not None
    assert call.finished_at - call.started_at >= 0.03


async def test_the_gate_holds_calls_and_the_record_knows_them(
    sim: Simulator, http: httpx.AsyncClient
) -> None:
    async with held(sim), asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(results(http, **bulk("Ada", "Bo")))
        await asyncio.to_thread(sim.calls.wait_for, 1)
        assert sim.calls.in_flight["bulk"] == 1
        assert not asked.done()
        sim.gate.open()
    assert [question[:3] for question in sim.calls.questions()] == [
        (1, "Ada", "Été"),
        (2, "Bo", "Été"),
    ]
    assert sim.calls.rows["bulk"] == 2


async def test_the_record_is_bounded(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.calls.kept_rows = 10
    for _ in range(10):
        await results(http)
    assert len(sim.calls.recent()) == 3
    assert (sim.calls.counts["bulk"], sim.calls.rows["bulk"]) == (10, 30)


@pytest.mark.parametrize(
    ("status", "body", "media_type"),
    [
        (400, None, "application/json"),
        (401, None, "application/json"),
        (403, "detail", "application/json"),
        (404, None, "application/json"),
        (405, None, "application/json"),
        (413, "html", "text/html"),
        (422, "detail", "application/json"),
        (429, None, "text/html"),
        (500, None, "text/plain"),
        (500, "message", "application/json"),
        (502, None, "text/html"),
        (503, "text", "text/plain"),
        (504, None, "text/html"),
        (503, "empty", "text/plain"),
    ],
)
async def test_statuses_come_with_their_bodies(
    sim: Simulator, http: httpx.AsyncClient, status: int, body: str | None, media_type: str
) -> None:
    sim.faults.add("status", status=status, body=body, retry_after="7", calls=1)
    reply = await http.post(BULK, json=bulk())
    assert reply.status_code == status
    assert reply.headers["content-type"].startswith(media_type)
    assert reply.headers["retry-after"] == "7"
    if body == "detail":
        assert "detail" in reply.json()
    assert len(await results(http)) == 3
    assert sim.calls.recent()[0].fault == "status"


async def test_an_error_prints_its_message(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.faults.add("status", status=500, body="message", text='{"message": "no API key set"}')
    assert (await http.post(BULK, json=bulk())).json() == {"message": "no API key set"}


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("reset", httpx.ReadError),
        ("reset_midway", (httpx.ReadError, httpx.RemoteProtocolError)),
        ("cut", httpx.RemoteProtocolError),
    ],
)
async def test_connections_break_off(
    sim: Simulator,
    http: httpx.AsyncClient,
    name: str,
    error: type[Exception] | tuple[type[Exception], ...],
) -> None:
    sim.faults.add(name, calls=1)
    with pytest.raises(error):
        await http.post(BULK, json=bulk())
    assert len(await results(http)) == 3
    await asyncio.to_thread(sim.calls.wait_until_idle)
    assert sim.calls.statuses == {"bulk none": 1, "bulk 200": 1}


async def test_a_hanging_call_never_answers(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.faults.add("hang", endpoint="bulk")
    with pytest.raises(httpx.ReadTimeout):
        await http.post(BULK, json=bulk(), timeout=SHORT)
    assert (await http.get("/health")).status_code == 200
    await asyncio.to_thread(sim.calls.wait_until_idle)


async def test_a_drip_comes_whole_in_pieces(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.faults.add("drip", size=200, interval=MILLISECOND)
    async with http.stream("POST", BULK, json=bulk()) as reply:
        pieces = [piece async for piece in reply.aiter_raw()]
    assert len(pieces) > 3
    assert len(json.loads(b"".join(pieces))["results"]) == 3


async def test_a_slow_answer_is_an_honest_one(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.faults.add("slow", wait=20 * MILLISECOND)
    assert len(await results(http)) == 3
    (call,) = sim.calls.recent()
    # The answer may be here before its server has seen it off.
    await until(lambda: call.finished_at is not None)
    assert call.finished_at is not None
    assert call.finished_at - call.started_at >= 0.02


@pytest.mark.parametrize("name", ["truncated_json", "not_json", "invalid_utf8", "empty_body"])
async def test_bodies_are_not_json(sim: Simulator, http: httpx.AsyncClient, name: str) -> None:
    sim.faults.add(name)
    reply = await http.post(BULK, json=bulk())
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    with pytest.raises(ValueError, match=r"."):
        json.loads(reply.content)


async def test_content_types_are_wrong(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.faults.add("html", calls=1)
    reply = await http.post(BULK, json=bulk())
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    sim.faults.add("wrong_content_type", calls=1)
    reply = await http.post(BULK, json=bulk())
    assert reply.headers["content-type"].startswith("text/plain")
    assert reply.json()["results"]


async def test_a_redirect_leads_elsewhere(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.faults.add("redirect", endpoint="bulk", location="/elsewhere")
    reply = await http.post(BULK, json=bulk(), follow_redirects=True)
    assert (reply.status_code, sim.calls.counts["other"]) == (404, 1)


async def test_gzip_is_accepted_and_a_bomb_unpacks_to_its_size(
    sim: Simulator, http: httpx.AsyncClient
) -> None:
    sim.faults.add("gzip", calls=1)
    assert len(await results(http)) == 3
    sim.faults.add("gzip_bomb", size=8 << 20)
    async with http.stream("POST", BULK, json=bulk()) as reply:
        packed = b"".join([piece async for piece in reply.aiter_raw()])
    assert len(packed) < 20_000
    unpacked = zlib.decompress(packed, wbits=31)
    assert len(unpacked) > 8 << 20
    assert json.loads(unpacked) == {"results": []}


@pytest.mark.parametrize("name", ["huge_body", "huge_declared"])
async def test_huge_bodies_stream_and_stop_when_the_client_goes(
    sim: Simulator, http: httpx.AsyncClient, name: str
) -> None:
    sim.faults.add(name, size=4 << 20, calls=1)
    reply = await http.post(BULK, json=bulk())
    assert len(reply.content) > 4 << 20
    assert ("content-length" in reply.headers) == (name == "huge_declared")
    sim.faults.add(name, size=1 << 40 if name == "huge_body" else 1 << 30)
    async with http.stream("POST", BULK, json=bulk()) as endless:
        assert await anext(endless.aiter_raw())
    await asyncio.to_thread(sim.calls.wait_until_idle)


def first_entry(result: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = result["provenance"][0]
    return entry


SPOILED: dict[str, Callable[[Any], bool]] = {
    "not_an_object": lambda r: r == 7,
    "null_id": lambda r: r["library_id"] is None,
    "text_id": lambda r: r["library_id"] == "seven",
    "big_id": lambda r: r["library_id"] == 2**31,
    "wrong_types": lambda r: r["main"] == "text",
    "nan": lambda r: math.isnan(r["confidence"]),
    "infinity": lambda r: math.isinf(r["confidence"]),
    "confidence_high": lambda r: r["confidence"] > 1,
    "confidence_low": lambda r: r["confidence"] < 0,
    "nul": lambda r: "\x00" in r["main"]["wikidata_qid"],
    "long_text": lambda r: len(r["main"]["wikidata_qid"]) == 100_000,
    "big_int": lambda r: r["main"]["discogs_artist_id"] == 2**31,
    "unknown_kind": lambda r: r["kind"] == "orchestra",
    "unknown_method": lambda r: r["method"] == "divination",
    "unknown_source": lambda r: first_entry(r)["source"] == "tidal",
    "no_main": lambda r: r["main"] is None,
    "no_method": lambda r: r["method"] is None,
    "no_confidence": lambda r: r["confidence"] is None,
    "no_provenance": lambda r: r["provenance"] is None,
    "null_provenance": lambda r: first_entry(r)["external_id"] is None,
    "provenance_nan": lambda r: math.isnan(first_entry(r)["confidence"]),
    "provenance_high": lambda r: first_entry(r)["confidence"] > 1,
    "provenance_nul": lambda r: "\x00" in first_entry(r)["external_id"],
    "provenance_long": lambda r: len(first_entry(r)["external_id"]) == 100_000,
    "repeated_source": lambda r: len({entry["source"] for entry in r["provenance"]}) == 1,
    "disagreeing": lambda r: first_entry(r)["external_id"] != str(r["main"]["discogs_artist_id"]),
    "tracks_not_attempted": lambda r: r["tracks_attempted"] is False,
    "tracks_wrong_types": lambda r: r["tracks_attempted"] == "yes",
}


@pytest.mark.parametrize("name", SPOILED)
async def test_one_result_is_spoiled(sim: Simulator, http: httpx.AsyncClient, name: str) -> None:
    honest = await results(http)
    sim.faults.add(name, artist="Bo", calls=1)
    found = await results(http)
    assert SPOILED[name](found[1])
    assert [found[0], found[2]] == [honest[0], honest[2]]
    sim.faults.add(name, rows=None)
    assert all(SPOILED[name](result) for result in await results(http))


async def test_lists_of_results_are_spoiled(sim: Simulator, http: httpx.AsyncClient) -> None:
    honest = one, two, three = await results(http)
    sim.faults.add("short", calls=1)
    assert await results(http) == [two, three]
    sim.faults.add("foreign", calls=1)
    assert await results(http) == [*honest, one | {"library_id": 1_000_001}]
    sim.faults.add("repeated", calls=1, rows=2)
    assert await results(http) == [*honest, one, two]
    sim.faults.add("conflicting", calls=1)
    *others, last = await results(http)
    assert (others, last["library_id"], last["kind"]) == (honest, 1, "unresolved")
    sim.faults.add("permuted", calls=1)
    assert await results(http) == [three, two, one]
    sim.faults.add("empty_results", calls=1)
    assert await results(http) == []


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("list_document", lambda d: isinstance(d, list)),
        ("no_results", lambda d: "results" not in d),
        ("null_results", lambda d: d["results"] is None),
        ("object_results", lambda d: isinstance(d["results"], dict)),
        ("junk_cache_stats", lambda d: d["cache_stats"]["memory_hits"] == "many"),
        ("no_contract_version", lambda d: "tracks_contract_version" not in d),
    ],
)
async def test_documents_are_spoiled(
    sim: Simulator, http: httpx.AsyncClient, name: str, holds: Callable[[Any], bool]
) -> None:
    sim.faults.add(name)
    assert holds((await http.post(BULK, json=bulk())).json())


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("unknown_status", lambda r: r["status"] == "deferred"),
        ("null_sources", lambda r: r["sources"] is None),
        ("null_source", lambda r: r["sources"]["discogs_release"] is None),
        ("null_artists", lambda r: r["sources"]["discogs_release"]["artists"] is None),
        ("null_artist", lambda r: r["sources"]["discogs_release"]["artists"] == [None]),
        ("empty_artists", lambda r: r["sources"]["discogs_release"]["artists"] == []),
        ("wrong_types", lambda r: r["status"] == 7),
        ("big_id", lambda r: r["identity_id"] == 2**31),
        ("nul", lambda r: "\x00" in r["message"]),
    ],
)
async def test_refresh_items_are_spoiled(
    sim: Simulator, http: httpx.AsyncClient, name: str, holds: Callable[[Any], bool]
) -> None:
    sim.identities.mix = IdentityMix(warm_share=1)
    sim.faults.add(name, ids={2})
    one, two, three = await results(http, REFRESH, identity_ids=[1, 2, 3])
    assert holds(two)
    assert one["status"] == three["status"] == "warmed"


async def test_a_poison_row_fails_its_whole_batch(sim: Simulator, http: httpx.AsyncClient) -> None:
    sim.faults.add("status", status=422, body="detail", artist="Poison")
    sim.faults.add(Fault(FaultName.STATUS, status=500, with_tracks=True))
    assert (await http.post(BULK, json=bulk("Ada", "Poison 3"))).status_code == 422
    assert (await http.post(BULK, json=bulk("Ada", "Bo"))).status_code == 200
    assert (await http.post(BULK, json=bulk("Ada", tracks=True))).status_code == 500


async def test_a_process_takes_switches_and_ends_with_its_block() -> None:
    with simulator_process(knowledge={"all_single": True}, latency={"fixed": 0.001}) as process:
        async with httpx.AsyncClient(base_url=process.url) as http:
            assert (await results(http))[0] == {"library_id": 1} | verdict_for(
                "Ada Mir", "Été", Knowledge(all_single=True)
            )
            process.set(faults=[{"name": "status", "status": 502, "calls": 1}], permits=None)
            assert (await http.post(BULK, json=bulk())).status_code == 502
            with pytest.raises(httpx.HTTPStatusError, match="400"):
                process.set(no_such_switch=True)
            counters = process.counters()
            assert counters["calls"] == {"bulk": 2}
            assert counters["statuses"] == {"bulk 200": 1, "bulk 502": 1}
    with pytest.raises(httpx.ConnectError):
        httpx.get(process.url)


def test_a_server_stops_while_calls_hang(sim: Simulator) -> None:
    sim.faults.add("hang")
    with simulator_thread(sim) as url, httpx.Client(base_url=url) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post(BULK, json=bulk(), timeout=SHORT)
        sim.gate.shut()
        with pytest.raises(httpx.ReadTimeout):
            http.post(BULK, json=bulk(), timeout=SHORT)


def test_a_catalogue_fills_the_backend(dsn: str, tmp_path: Path) -> None:
    invented = list(releases(500))
    path = tmp_path / "albums.tsv"
    path.write_text("artist_name\talbum_title\tyear\nSigur Rós\t( )\t2002\n", encoding="utf-8")
    assert fill(dsn, "wxyc_schema", invented) == 500
    assert fill(dsn, "wxyc_schema", albums_tsv(path)) == 1
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT library.artist_name, album_title, label, code_volume_letters"
            " FROM wxyc_schema.library JOIN wxyc_schema.artists ON artists.id = artist_id"
            " WHERE artists.artist_name = library.artist_name ORDER BY library.id"
        ).fetchall()
        (artists,) = connection.execute("SELECT count(*) FROM wxyc_schema.artists").fetchall()
    expected = [
        (r.artist_name, r.album_title, r.label, r.code_volume_letters)
        for r in [*invented, *albums_tsv(path)]
    ]
    assert rows == expected
    assert artists == (len({row[0] for row in rows}),)
