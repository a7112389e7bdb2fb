"""What LML's replies mean, over real HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from socket import SO_LINGER, SOL_SOCKET
from socketserver import BaseRequestHandler, ThreadingTCPServer
from struct import pack
from threading import Thread
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from listener.adapters.lml.client import LmlClient, LmlLimits, open_lml
from listener.adapters.lml.health import LmlProbe, NoAnswerError, open_probe
from listener.domain.faults import (
    BatchRefusedError,
    CallInterruptedError,
    LmlRefusedError,
    LmlUnavailableError,
    TracksRefusedError,
)
from listener.domain.gate import Route
from listener.domain.judging import Invalid, judge
from listener.domain.question import Question
from listener.domain.tracks import Tracks
from listener.domain.verdict import Verdict
from listener.simulator import Health, Knowledge, Simulator, simulator_thread
from listener.simulator.replies import Wire
from listener.simulator.tracks import Tracks as Fields
from listener.simulator.tracks import TrackStore, entries_for

TOKEN = "secret-token-of-the-tests"
QUESTIONS = [Question(row, f"Artist {row}", "Album", None, b"") for row in range(1, 6)]
LIMITS = LmlLimits(
    connections=2,
    attempts=2,
    resolve_timeout=timedelta(seconds=5),
    refresh_timeout=timedelta(seconds=5),
    reply_bytes=2**18,
)
# These answer too late for anybody.
SLOW = {"hang", "drip"}


@pytest.fixture
def simulator() -> Simulator:
    """LML with a verdict of one artist for everything."""
    return Simulator(knowledge=Knowledge(all_single=True), api_key=TOKEN)


@pytest.fixture
def url(simulator: Simulator) -> Iterator[str]:
    """Yield the base URL of the simulator."""
    with simulator_thread(simulator) as address:
        yield address


@pytest.fixture
async def lml(url: str) -> AsyncIterator[LmlClient]:
    """Yield a client that is as patient as a busy machine needs it."""
    async with open_lml(url, TOKEN, LIMITS) as client:
        yield client


@pytest.fixture
async def hasty(url: str) -> AsyncIterator[LmlClient]:
    """Yield a client that gives up soon."""
    limits = replace(LIMITS, resolve_timeout=timedelta(seconds=0.5))
    async with open_lml(url, TOKEN, limits) as client:
        yield client


async def answers(lml: LmlClient) -> list[Verdict | Invalid]:
    return await (await lml.ask(QUESTIONS)).read()


async def test_call_with_once_is_made_once(simulator: Simulator, lml: LmlClient) -> None:
    simulator.faults.add("status", status=502, body="html")
    with pytest.raises(CallInterruptedError):
        await lml.ask(QUESTIONS, once=True)
    assert simulator.calls.counts["bulk"] == 1


@pytest.mark.parametrize(
    ("fault", "details", "meaning", "calls"),
    [
        ("status", {"status": 400}, BatchRefusedError, 1),
        ("status", {"status": 401}, LmlRefusedError, 1),
        ("status", {"status": 403}, LmlRefusedError, 1),
        ("status", {"status": 404, "body": "html"}, LmlRefusedError, 1),
        ("status", {"status": 405}, LmlRefusedError, 1),
        ("status", {"status": 413, "body": "html"}, BatchRefusedError, 1),
        ("status", {"status": 422, "body": "detail"}, BatchRefusedError, 1),
        ("status", {"status": 429}, LmlUnavailableError, 2),
        ("status", {"status": 500, "body": "message"}, LmlRefusedError, 1),
        ("status", {"status": 500, "body": "text"}, BatchRefusedError, 2),
        ("status", {"status": 502, "body": "html"}, CallInterruptedError, 2),
        ("status", {"status": 503, "body": "empty"}, LmlUnavailableError, 2),
        ("status", {"status": 504, "body": "html"}, CallInterruptedError, 2),
        ("redirect", {}, LmlRefusedError, 1),
        ("reset", {}, CallInterruptedError, 2),
        ("reset_midway", {}, CallInterruptedError, 2),
        ("cut", {}, CallInterruptedError, 2),
        ("hang", {}, CallInterruptedError, 1),
        ("drip", {"size": 1}, CallInterruptedError, 1),
        ("html", {}, LmlUnavailableError, 2),
        ("not_json", {}, LmlUnavailableError, 2),
        ("empty_body", {}, LmlUnavailableError, 2),
        ("list_document", {}, LmlUnavailableError, 2),
        ("truncated_json", {}, CallInterruptedError, 1),
        ("no_results", {}, CallInterruptedError, 1),
        ("null_results", {}, CallInterruptedError, 1),
        ("object_results", {}, CallInterruptedError, 1),
        ("gzip_bomb", {"size": 2**24}, CallInterruptedError, 1),
        ("huge_body", {"size": 2**24}, CallInterruptedError, 1),
    ],
)
async def test_reply_without_an_answer(  # noqa: PLR0917 - one parameter a column
    simulator: Simulator,
    lml: LmlClient,
    hasty: LmlClient,
    fault: str,
    details: dict[str, Any],
    meaning: type[Exception],
    calls: int,
) -> None:
    simulator.faults.add(fault, **details)
    with pytest.raises(meaning) as caught:
        await answers(hasty if fault in SLOW else lml)
    assert type(caught.value) is meaning
    assert simulator.calls.counts["bulk"] == calls
    assert simulator.calls.counts["other"] == 0
    assert TOKEN not in str(caught.value)
    assert "Artist" not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "details", "meaning", "calls"),
    [
        ("status", {"status": 500, "body": "text"}, TracksRefusedError, 2),
        ("truncated_json", {}, TracksRefusedError, 1),
        ("no_results", {}, TracksRefusedError, 1),
        ("gzip_bomb", {"size": 2**24}, TracksRefusedError, 1),
        ("huge_body", {"size": 2**24}, TracksRefusedError, 1),
        ("hang", {}, TracksRefusedError, 1),
        ("drip", {"size": 1}, TracksRefusedError, 1),
        # All of these would be so without tracks.
        ("status", {"status": 422, "body": "detail"}, BatchRefusedError, 1),
        ("status", {"status": 413, "body": "html"}, BatchRefusedError, 1),
        ("status", {"status": 401}, LmlRefusedError, 1),
        ("status", {"status": 500, "body": "message"}, LmlRefusedError, 1),
        ("status", {"status": 503, "body": "empty"}, LmlUnavailableError, 2),
        ("reset", {}, CallInterruptedError, 2),
        ("html", {}, LmlUnavailableError, 2),
    ],
)
async def test_reply_without_an_answer_to_a_batch_with_tracks(  # noqa: PLR0917 - as above
    simulator: Simulator,
    lml: LmlClient,
    hasty: LmlClient,
    fault: str,
    details: dict[str, Any],
    meaning: type[Exception],
    calls: int,
) -> None:
    simulator.faults.add(fault, **details)
    client = hasty if fault in SLOW else lml
    with pytest.raises(meaning) as caught:
        await (await client.ask(QUESTIONS, with_tracks=True)).read()
    assert type(caught.value) is meaning
    assert simulator.calls.counts["bulk"] == calls
    assert all(call.with_tracks for call in simulator.calls.recent("bulk"))
    assert "Artist" not in str(caught.value)


async def tracks_of(lml: LmlClient, legacy_release_id: int) -> Tracks | None:
    question = Question(1, "Various Artists", "A Sampler", legacy_release_id, b"")
    (verdict,) = await (await lml.ask([question], with_tracks=True)).read()
    assert isinstance(verdict, Verdict)
    return verdict.tracks


async def test_each_state_of_the_tracks_comes_through(simulator: Simulator, lml: LmlClient) -> None:
    simulator.knowledge = Knowledge()
    entries = entries_for(44, 5)
    simulator.tracks = TrackStore(
        overrides={
            11: Fields(None, None),
            22: Fields(attempted=False, entries=[]),
            33: Fields(attempted=True, entries=[]),
            44: Fields(attempted=True, entries=entries),
            55: Fields(attempted=False, entries=entries),
        }
    )
    found = {legacy: await tracks_of(lml, legacy) for legacy in (11, 22, 33, 44, 55)}
    assert (found[11], found[22], found[33]) == (None, None, Tracks())
    assert found[44] == found[55]
    assert found[44] is not None
    assert [key.artist_name for key in found[44].keys] == [e["artist_name"] for e in entries]
    simulator.wire = Wire(omit_nulls=True)
    assert {legacy: await tracks_of(lml, legacy) for legacy in found} == found


@pytest.mark.parametrize(("version", "reported"), [(1, 0), (2, 1), (None, 1)])
async def test_other_contract_on_tracks_is_reported_once(
    simulator: Simulator, lml: LmlClient, version: int | None, reported: int
) -> None:
    simulator.knowledge = Knowledge()
    simulator.wire = Wire(tracks_contract_version=version)
    simulator.tracks = TrackStore(not_visited_share=0)
    with capture_logs() as logs:
        visited = [await tracks_of(lml, 44) is not None for _ in range(2)]
        await answers(lml)
    assert visited == [not reported] * 2
    lines = [
        line
        for line in logs
        if line["event"] == "ignoring tracks under an unknown contract, logged once"
    ]
    assert [line["contract"] for line in lines] == [repr(version)] * reported


@pytest.mark.parametrize("fault", ["gzip", "wrong_content_type", "permuted", "junk_cache_stats"])
async def test_unusual_but_complete_reply_is_accepted(
    simulator: Simulator, lml: LmlClient, fault: str
) -> None:
    simulator.faults.add(fault)
    assert {result.library_id for result in await answers(lml)} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    "fault",
    [
        "not_an_object",
        "null_id",
        "text_id",
        "big_id",
        "wrong_types",
        "nan",
        "infinity",
        "confidence_high",
        "confidence_low",
        "nul",
        "long_text",
        "unknown_kind",
        "no_main",
        "no_method",
        "no_confidence",
        "provenance_nan",
        "provenance_high",
        "provenance_nul",
        "provenance_long",
        "repeated_source",
    ],
)
async def test_malformed_result_fails_only_its_row(
    simulator: Simulator, lml: LmlClient, fault: str
) -> None:
    simulator.faults.add(fault, ids=frozenset({3}))
    judgement = judge(QUESTIONS, await answers(lml))
    assert {verdict.library_id for verdict in judgement.accepted} == {1, 2, 4, 5}
    assert judgement.unanswered.keys() == {3}


@pytest.mark.parametrize(
    "fault", ["unknown_method", "unknown_source", "disagreeing", "no_provenance", "null_provenance"]
)
async def test_odd_result_is_accepted(simulator: Simulator, lml: LmlClient, fault: str) -> None:
    simulator.faults.add(fault, ids=frozenset({3}))
    judgement = judge(QUESTIONS, await answers(lml))
    assert {verdict.library_id for verdict in judgement.accepted} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("asked", "handed_on"),
    [
        ("7", timedelta(seconds=7)),
        ("3600", timedelta(minutes=5)),
        ("9" * 40, timedelta(minutes=5)),
        ("9" * 5000, timedelta(minutes=5)),
        ("-1", None),
        ("Fri, 31 Dec 2077 23:59:59 GMT", timedelta(minutes=5)),
        ("Fri, 31 Dec 1999 23:59:59 -0000", timedelta()),
        ("soon", None),
        (f"Fri, 31 Dec {'9' * 30} 23:59:59 GMT", None),
    ],
)
async def test_retry_after_is_passed_on_within_reason(
    simulator: Simulator, lml: LmlClient, asked: str, handed_on: timedelta | None
) -> None:
    simulator.faults.add("status", status=429, retry_after=asked)
    with pytest.raises(LmlUnavailableError) as caught:
        await answers(lml)
    assert caught.value.retry_after == handed_on


@contextmanager
def rude_server() -> Iterator[int]:
    """Yield the port of what cuts every connection once a byte has come."""

    class Rude(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1)
            self.request.setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
            self.request.close()

    with ThreadingTCPServer(("127.0.0.1", 0), Rude) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize("route", Route)
@pytest.mark.parametrize(
    ("status", "body", "is_lml"),
    [
        (200, b'{"results": []}', True),
        (200, b'{"results": null}', True),
        (200, b'{"results": [], "tracks_contract_version": 1, "cache_stats": {"x": 0}}', True),
        (200, b'{"hello": 1}', False),
        (200, b"{}", False),
        (200, b'{"results": "none"}', False),
        (200, b"[]", False),
        (200, b"", False),
        (200, b"<html><body>Welcome</body></html>", False),
        (200, b"\xff\xfe", False),
        (400, b'{"message": "empty"}', True),
        (422, b'{"detail": []}', True),
        (422, b"<html></html>", True),
        (503, b"", True),
        (404, b"<html></html>", True),
    ],
)
async def test_probe_knows_a_reply_of_lml(
    route: Route, status: int, body: bytes, *, is_lml: bool
) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=body))
    async with httpx.AsyncClient(transport=transport, base_url="http://lml.example") as http:
        probe = await LmlProbe(http, TOKEN).probe(route)
    assert (probe.status, probe.is_lml) == (status, is_lml)


async def test_probe_reads_no_more_than_it_needs() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    for status in (200, 422):
        transport = httpx.MockTransport(lambda _, s=status: httpx.Response(s, content=endless()))
        async with httpx.AsyncClient(transport=transport, base_url="http://lml.example") as http:
            probe = await LmlProbe(http, TOKEN).probe(Route.LIBRARY)
        assert (probe.status, probe.is_lml) == (status, status != 200)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:1", "Connection refused"),
        ("http://localhost:1", "Connection refused"),
        ("http://lml.invalid", "(Name or service not known|nodename nor servname.*)"),
        ("http://127.0.0.1:{rude}", "Connection reset by peer"),
        ("https://127.0.0.1:{lml}", r"\[SSL.*\] .*"),
    ],
)
async def test_connection_failure_is_reported_in_the_systems_words(
    url: str, address: str, reason: str
) -> None:
    with rude_server() as rude:
        address = address.format(rude=rude, lml=url.rpartition(":")[2].strip("/"))
        async with open_probe(address, TOKEN) as probe:
            with pytest.raises(NoAnswerError, match=f"^LML does not answer: {reason}$"):
                await probe.health()
        with capture_logs() as logs:
            async with open_lml(address, TOKEN, LIMITS) as lml:
                words = f"^no answer to identity/bulk-resolve-libraries: {reason}$"
                with pytest.raises(LmlUnavailableError, match=words):
                    await answers(lml)
    assert [re.search(words, log["reason"]) is not None for log in logs] == [True]


async def test_address_that_is_invalid_is_not_blamed_on_a_row() -> None:
    async with open_lml("http://xn--e28h.invalid", TOKEN, LIMITS) as lml:
        with pytest.raises(LmlUnavailableError, match=r"an address that cannot be used$"):
            await answers(lml)
        assert not await lml.well()
        assert await lml.release() is None


async def test_call_that_times_out_is_reported_and_not_repeated(
    simulator: Simulator, hasty: LmlClient
) -> None:
    simulator.faults.add("hang")
    with pytest.raises(CallInterruptedError, match=r"bulk-resolve-libraries: timed out$"):
        await answers(hasty)
    assert simulator.calls.counts["bulk"] == 1


@pytest.mark.parametrize("fault", ["list_document", "not_json", "html"])
async def test_reply_that_is_not_an_object_is_reported(
    simulator: Simulator, lml: LmlClient, fault: str
) -> None:
    simulator.faults.add(fault)
    with pytest.raises(LmlUnavailableError, match=r"bulk-resolve-libraries is not a JSON object$"):
        await answers(lml)


async def test_call_is_tried_once_while_lml_fails(simulator: Simulator, lml: LmlClient) -> None:
    simulator.faults.add("status", status=503)
    for calls in (2, 3, 4):
        with pytest.raises(LmlUnavailableError):
            await answers(lml)
        assert simulator.calls.counts["bulk"] == calls
    simulator.faults.clear()
    await answers(lml)
    simulator.faults.add("status", status=503)
    with pytest.raises(LmlUnavailableError):
        await answers(lml)
    assert simulator.calls.counts["bulk"] == 7


async def test_health_of_lml_is_reported(simulator: Simulator, lml: LmlClient) -> None:
    assert await lml.well()
    simulator.faults.add("status", endpoint="health", status=503)
    assert not await lml.well()


async def test_release_of_lml_is_reported(simulator: Simulator, lml: LmlClient) -> None:
    assert await lml.release() == "2.14.0"
    simulator.health = Health(version="2.15.0", commit_sha="abc")
    assert await lml.release() == "2.15.0 abc"
    for fault in ("html", "not_json", "list_document", "empty_body", "reset", "huge_body"):
        simulator.faults.clear()
        simulator.faults.add(fault, endpoint="health")
        assert await lml.release() is None, fault
    simulator.faults.clear()
    assert await lml.release() == "2.15.0 abc"
