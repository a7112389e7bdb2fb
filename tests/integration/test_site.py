"""The routes, asked over real HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from listener.adapters.http import server as serving
from listener.adapters.http.metrics import Metrics
from listener.adapters.http.numbers import Numbers
from listener.adapters.http.server import SiteServer, bound_socket, url_of
from listener.adapters.http.site import Sources, make_site
from listener.domain.change import Stream
from listener.domain.faults import FixableError, StoreUnavailableError
from listener.domain.pacing import BreakerState
from listener.domain.pulse import Pulse, Reading, StreamReading, WakeMode
from listener.domain.refreshing import RotationCoverage
from listener.domain.tally import Duty, Skip, Tally
from listener.engine.supervisor import in_background
from tests.browsed import FakeCatalogue
from tests.integration.conftest import until

TOKEN = "a-token-of-the-tests"
ALL = (
    "/",
    "/app.js",
    "/chart.js",
    "/style.css",
    "/icon.svg",
    "/metrics",
    "/status.json",
    "/latest.json",
)
OPEN = ("/livez", "/readyz")


@dataclass
class Served:
    """What the routes serve, and how often they looked."""

    why: Sequence[str] = ()
    fault: str | None = None
    looks: int = 0
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event | None = None
    metrics: Metrics = field(default_factory=lambda: Metrics(lambda: Numbers(ready=True)))

    def unready(self) -> Sequence[str]:
        return self.why

    def latest(self) -> bytes:
        return json.dumps({"answers": []}).encode()

    async def look(self) -> bytes:
        self.looks += 1
        self.looked.set()
        await (self.gate.wait() if self.gate is not None else asyncio.sleep(0))
        if self.fault is not None:
            raise StoreUnavailableError(self.fault)
        return json.dumps({"looks": self.looks}).encode()


@asynccontextmanager
async def site(
    served: Served | None = None,
    token: str | None = None,
    hosts: frozenset[str] | None = None,
    catalogue: FakeCatalogue | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    served = served or Served()
    sources = Sources(
        served.unready,
        served.metrics.text,
        served.latest,
        served.look,
        served.look,
        served.look,
        catalogue or FakeCatalogue(),
    )
    bound = bound_socket("127.0.0.1", 0)
    url = url_of(bound, "127.0.0.1")
    async with (
        in_background(SiteServer(make_site(sources, token, hosts), bound).answer()),
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        yield client


async def test_probes_answer_yes_or_no_with_reasons() -> None:
    served = Served()
    async with site(served) as client:
        assert (await client.get("/livez")).text == "ok\n"
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "why": []})
        served.why = ["no daemon follows library"]
        red = await client.get("/readyz")
        assert (red.status_code, red.json()["why"]) == (503, served.why)
        assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize("path", ALL)
async def test_token_is_needed(path: str) -> None:
    async with site(token=TOKEN) as client:
        refused = await client.get(path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        assert TOKEN not in refused.text
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert (await client.get(path, headers=bearer)).status_code == 200
        assert (await client.get(path, auth=("anybody", TOKEN))).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Token {TOKEN}",
        "Basic !!!",
        "Basic YTpi",
        f"Basic {TOKEN}",
    ],
)
async def test_wrong_token_is_refused(authorization: str) -> None:
    async with site(token=TOKEN) as client:
        reply = await client.get("/status.json", headers={"authorization": authorization})
        assert reply.status_code == 401


@pytest.mark.parametrize("path", OPEN)
async def test_probes_need_no_token(path: str) -> None:
    async with site(token=TOKEN) as client:
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/status.json", "/livez"])
async def test_nothing_can_be_changed(method: str, path: str) -> None:
    async with site() as client:
        reply = await client.request(method, path)
        assert (reply.status_code, reply.headers["allow"]) == (405, "GET, HEAD")


async def test_head_is_answered_without_a_body() -> None:
    async with site() as client:
        reply = await client.head("/status.json")
        assert (reply.status_code, reply.content) == (200, b"")


async def test_every_reply_forbids_what_is_not_ours() -> None:
    async with site() as client:
        for path in (*ALL, *OPEN, "/nowhere"):
            headers = (await client.get(path)).headers
            assert headers["content-security-policy"].startswith("default-src 'none'; ")
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert "server" not in headers


async def test_page_is_small_and_names_no_other_host() -> None:
    async with site() as client:
        replies = [await client.get(path) for path in ALL[:5]]
    assert sum(len(reply.content) for reply in replies) <= 100_000
    for reply in replies:
        named = set(re.findall(r"https?://[^\s\"'<>]+", reply.text))
        assert named <= {"http://www.w3.org/2000/svg"}
    page = replies[0].text
    assert "<style" not in page
    assert " style=" not in page
    assert re.findall(r"<script(?![^>]* src=)", page) == []


@pytest.mark.parametrize(("host", "status"), [("localhost:1", 200), ("evil.example", 421)])
async def test_page_of_another_site_gets_nothing(host: str, status: int) -> None:
    async with site(hosts=frozenset({"localhost", "127.0.0.1"})) as client:
        # A probe may call us by any name: it learns nothing that matters.
        assert (await client.get("/livez", headers={"host": host})).status_code == 200
        reply = await client.get("/status.json", headers={"host": host})
        assert reply.status_code == status


async def test_many_viewers_share_one_read() -> None:
    served = Served()
    async with site(served) as client:
        replies = await asyncio.gather(*(client.get("/status.json") for _ in range(20)))
    assert {reply.content for reply in replies} == {b'{"looks": 1}'}


async def test_lost_database_is_reported() -> None:
    served = Served(fault="the database is gone")
    async with site(served) as client:
        reply = await client.get("/status.json")
        assert (reply.status_code, reply.json()) == (503, {"fault": "the database is gone"})
        served.fault = None
        assert (await client.get("/status.json")).status_code == 200


async def test_long_header_is_refused() -> None:
    async with site() as client:
        try:
            status = (await client.get("/", headers={"x": "y" * 1_000_000})).status_code
        except httpx.TransportError:
            # Hung up on before it was all sent.
            status = 400
        assert status == 400
        assert (await client.get("/livez")).status_code == 200


async def test_silent_and_slow_connections_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_LIFE", timedelta(seconds=0.1))
    async with site() as client:
        address = client.base_url.host, client.base_url.port
        # Who asks is given the time that this takes on a busy machine.
        for sent, first in (
            (b"", 0.05),
            (b"GET / HT", 0.05),
            (b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", 2),
        ):
            monkeypatch.setattr(serving, "_FIRST_REQUEST", timedelta(seconds=first))
            reader, writer = await asyncio.open_connection(*address)
            writer.write(sent)
            try:
                answered = await reader.read()
            except ConnectionResetError:
                answered = b""
            assert answered.startswith(b"HTTP/1.1 200") == (b"livez" in sent)
            writer.close()


async def is_hung_up_on(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of a connection, or for its answer."""
    try:
        return await reader.read(1) == b""
    except ConnectionResetError:
        return True


async def test_oldest_idle_connection_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_CONNECTIONS", 2)
    monkeypatch.setattr(serving, "_STALE", timedelta())
    gate = asyncio.Event()
    served = Served(gate=gate)
    async with site(served) as client:
        address = client.base_url.host, client.base_url.port
        busy, asking = await asyncio.open_connection(*address)
        asking.write(b"GET /status.json HTTP/1.1\r\nHost: a\r\n\r\n")
        await served.looked.wait()
        half_open, silent = await asyncio.open_connection(*address)
        silent.write(b"GET /livez HTTP/1.1\r\nHost: a")
        assert (await client.get("/livez")).status_code == 200
        assert await is_hung_up_on(half_open)
        gate.set()
        assert not await is_hung_up_on(busy)
        for writer in (asking, silent):
            writer.close()


async def test_busy_connection_gives_way_to_a_probe_if_all_are_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "_CONNECTIONS", 2)
    served = Served(gate=asyncio.Event())
    async with site(served) as client:
        address = client.base_url.host, client.base_url.port
        stalled = [await asyncio.open_connection(*address) for _ in range(2)]
        for _, writer in stalled:
            writer.write(b"GET /status.json HTTP/1.1\r\nHost: a\r\n\r\n")
            await writer.drain()
        await served.looked.wait()
        for _ in range(3):
            async with httpx.AsyncClient(base_url=client.base_url, trust_env=False) as probe:
                assert (await probe.get("/livez")).status_code == 200
        assert await is_hung_up_on(stalled[0][0])
        for _, writer in stalled:
            writer.close()


async def test_unread_replies_do_not_keep_their_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "_CONNECTIONS", 2)
    # More than the buffers of both sides take, so its connection stays open after it was sent.
    body = b"x" * 50_000_000
    monkeypatch.setattr(Metrics, "text", lambda _: body)
    async with site() as client:
        address = client.base_url.host, client.base_url.port
        unread = []
        for _ in range(3):
            unread.append(await asyncio.open_connection(*address, limit=1))
            unread[-1][1].write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            await unread[-1][0].readexactly(1)
        assert (await client.get("/livez")).status_code == 200
        received = 0
        with suppress(ConnectionResetError):
            while part := await unread[0][0].read(1_000_000):
                received += len(part)
        assert received < len(body)
        for _, writer in unread:
            writer.close()


async def test_connection_answers_one_request(caplog: pytest.LogCaptureFixture) -> None:
    async with site() as client:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        answered = await reader.read()
        assert answered.count(b"HTTP/1.1 200") == 1
        writer.close()
    assert not caplog.records


CHUNKED = b" /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("rest", [b"zz\r\n", b"1\r\nxzz\r\n", b"0\r\n\r\nzz\r\n\r\n"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_request_that_turns_into_nonsense_logs_nothing(
    caplog: pytest.LogCaptureFixture, method: bytes, rest: bytes
) -> None:
    async with site() as client:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(method + CHUNKED + rest)
        try:
            answered = await reader.readline()
        except ConnectionResetError:
            answered = b""
        writer.close()
        assert answered in {b"HTTP/1.1 200 OK\r\n", b""}
        assert (await client.get("/livez")).status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_error_of_our_own_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    served = Served()
    served.unready = failing  # type: ignore[method-assign]
    # A simulator in the same process wants nothing logged.
    caplog.set_level(logging.ERROR, "uvicorn.error")
    async with site(served) as client:
        assert (await client.get("/readyz")).status_code == 500
        # It is logged once the reply is on its way.
        await until(lambda: caplog.records)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def failing() -> Sequence[str]:
    raise RuntimeError


async def test_probes_get_through_a_crowd_of_half_open_connections() -> None:
    async with site() as client:
        address = client.base_url.host, client.base_url.port
        crowd = []
        for _ in range(200):
            crowd.append(await asyncio.open_connection(*address))
            crowd[-1][1].write(b"GET /livez HTTP/1.1\r\nHost: a")
        for _ in range(20):
            async with httpx.AsyncClient(base_url=client.base_url, trust_env=False) as probe:
                assert (await probe.get("/livez")).status_code == 200
        for _, writer in crowd:
            writer.close()


async def test_server_stops_at_once_although_a_client_is_connected() -> None:
    async with site() as client:
        address = client.base_url.host, client.base_url.port
        reader, writer = await asyncio.open_connection(*address)
        await client.get("/livez")
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 2
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()


def test_address_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(FixableError, match=f"127.0.0.1:{port}: Address already in use; choose"):
            bound_socket("127.0.0.1", port)


def test_ipv6_address_is_in_brackets() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with bound_socket("::1", 0) as bound:
        assert url_of(bound, "::1") == f"http://[::1]:{bound.getsockname()[1]}/"


def values(text: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name.removeprefix("listener_"), _labels(dict(sample.labels))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def _labels(labels: dict[str, str]) -> tuple[str, ...]:
    # That of the stream first, whatever the others are called.
    return tuple(labels[name] for name in sorted(labels, key=lambda name: name != "stream"))


async def test_metrics_have_every_number() -> None:
    live = Tally(resolved=3, unresolved=1, capture_missed=2, lml_calls=4)
    live.skip(Skip.COMPILATION, 2)
    pulse = Pulse(
        stream=Stream.LIBRARY,
        wake_mode=WakeMode.POLL,
        breaker=BreakerState.HALF_OPEN,
        stalled=timedelta(seconds=2),
        looked=None,
        claimed=7,
        held=5,
    )
    waiting = (
        StreamReading(Stream.LIBRARY, 9, timedelta(seconds=8), followed=False, retrying=4),
        StreamReading(Stream.ROTATION, 0, None, followed=True),
    )
    numbers = Numbers(
        ready=True,
        pulses=(pulse,),
        claimed={Stream.LIBRARY: 7, Stream.ROTATION: 1},
        captured={Stream.LIBRARY: 11, Stream.ROTATION: 1},
        reading=Reading(waiting, 6, timedelta(seconds=2)),
        tallies=(live,),
        refreshed={"warmed": 4, "a word of a newer LML": 1, "another": 2},
        neglected={Duty.SAMPLES: 8},
        calls_in_flight=2,
        tokens=12,
        log_lines_dropped=3,
        library={"resolved": 40, "never": 2},
        due={"never": 2, "failed": 1},
        rotation=RotationCoverage(9, 8, 7, 6, 0.75, 6, 5, datetime(2026, 3, 1, tzinfo=UTC)),
    )
    metrics = Metrics(lambda: numbers)
    metrics.settled(Stream.LIBRARY, [0.2, 3.0, -1.0])
    metrics.handled(Stream.LIBRARY, 500, 1.5)
    with metrics.call(1):
        pass
    with pytest.raises(ValueError, match="broken"), metrics.call(1):
        raise ValueError("broken")
    with metrics.refresh(1):
        pass
    with metrics.run("sweep", Tally(resolved=10)):
        during = values(metrics.text())
    async with site(Served(metrics=metrics)) as client:
        reply = await client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = values(reply.content)
    expected = {
        ("ready", ()): 1,
        ("following", ("library",)): 1,
        ("following", ("rotation",)): 0,
        ("rung", ("library", "poll")): 1,
        ("rung", ("library", "notify")): 0,
        ("breaker", ("library", "half-open")): 1,
        ("changes_captured_total", ("library",)): 11,
        ("changes_claimed_total", ("library",)): 7,
        ("changes_settled_total", ("library",)): 3,
        ("changes_held", ("library",)): 5,
        ("commit_to_identity_seconds_count", ("library",)): 3,
        ("commit_to_identity_seconds_sum", ("library",)): 3.2,
        ("commit_to_identity_seconds_bucket", ("library", "0.25")): 2,
        ("batch_rows_sum", ("library",)): 500,
        ("batch_seconds_sum", ("library",)): 1.5,
        ("lml_call_seconds_count", ("ok",)): 1,
        ("lml_call_seconds_count", ("failed",)): 1,
        ("refresh_call_seconds_count", ("ok",)): 1,
        ("refresh_call_seconds_count", ("failed",)): 0,
        ("retrying_rows", ("library",)): 4,
        ("library_rows", ("resolved",)): 40,
        ("due_rows", ("failed",)): 1,
        ("rotation_coverage", ()): 0.75,
        ("rotation_coldest_timestamp_seconds", ()): 1772323200,
        ("lml_calls_in_flight", ()): 2,
        ("lml_calls_total", ()): 4,
        ("verdicts_total", ("resolved",)): 13,
        ("verdicts_total", ("compilation",)): 2,
        ("capture_missed_total", ()): 2,
        ("kept_manual_total", ()): 0,
        ("rotation_refreshes_total", ("warmed",)): 4,
        ("rotation_refreshes_total", ("other",)): 3,
        ("housekeeping_failures_total", ("samples",)): 8,
        ("housekeeping_failures_total", ("runs",)): 0,
        ("backlog_changes", ("library",)): 9,
        ("oldest_change_age_seconds", ("library",)): 10,
        ("oldest_change_age_seconds", ("rotation",)): 0,
        ("parked_rows", ()): 6,
        ("pace_tokens", ()): 12,
        ("log_lines_dropped_total", ()): 3,
        ("database_up", ()): 1,
        ("runs_total", ("sweep", "done")): 1,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert during["verdicts_total", ("resolved",)] == 13
    names = (b"listener_", b"process_", b"# ")
    assert all(line.startswith(names) for line in reply.content.splitlines())
    for name in ("cpu_seconds_total", "resident_memory_bytes", "start_time_seconds", "open_fds"):
        assert f"\nprocess_{name} ".encode() in reply.content
