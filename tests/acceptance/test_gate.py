"""The deploy gate: LML is asked nothing until it is known to be new enough."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from listener.app.start import require_gate
from listener.domain.gate import GateError, Route
from listener.settings import Settings
from listener.simulator import Health, Simulator
from tests.acceptance.conftest import LML_KEY, Commands, Start
from tests.catalogue import add_release, count, outbox_size
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(30)

REQUIRED = "0123abc"
RUNNING = "f" * 40
HOST_KEY = "secret-token-of-the-code-host"


class CodeHost:
    """Answers comparisons of commits as a test sets it."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b""
        self.location: str | None = None
        self.asked: list[tuple[str, str | None]] = []
        self.url = ""
        self.says("ahead")

    def says(self, relation: str) -> None:
        """Let the running commit stand so to the required one."""
        self.body = json.dumps({"status": relation, "ahead_by": 1, "files": []}).encode()


@pytest.fixture
def code_host() -> Iterator[CodeHost]:
    """Serve comparisons on 127.0.0.1."""
    host = CodeHost()

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.asked.append((self.path, self.headers.get("authorization")))
            self.send_response(host.status)
            if host.location is not None:
                self.send_header("location", host.location)
            self.send_header("content-length", str(len(host.body)))
            self.end_headers()
            self.wfile.write(host.body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        host.url = f"http://127.0.0.1:{server.server_port}/repos/o/r/compare/{{base}}...{{head}}"
        yield host
        server.shutdown()
        serving.join()


@pytest.fixture
def gated(lml: str, code_host: CodeHost) -> Callable[..., Settings]:
    """Make settings with a gate, and with what is given as keywords."""

    def making(**others: object) -> Settings:
        return Settings.model_validate(
            {
                "database_url": "postgresql://nowhere/nothing",
                "library_metadata_url": lml,
                "lml_api_key": LML_KEY,
                "gate_commit_sha": REQUIRED,
                "gate_compare_url": code_host.url,
                **others,
            }
        )

    return making


Gated = Callable[..., Settings]


@pytest.mark.parametrize("relation", ["identical", "ahead"])
async def test_commit_or_descendant_opens_the_gate(
    gated: Gated, simulator: Simulator, code_host: CodeHost, relation: str
) -> None:
    simulator.health = Health(commit_sha=RUNNING)
    code_host.says(relation)
    await require_gate(gated())
    assert code_host.asked == [(f"/repos/o/r/compare/{REQUIRED}...{RUNNING}", None)]
    assert simulator.calls.counts == {"health": 1}


@pytest.mark.parametrize("relation", ["behind", "diverged"])
async def test_older_or_other_commit_shuts_the_gate(
    gated: Gated, simulator: Simulator, code_host: CodeHost, relation: str
) -> None:
    simulator.health = Health(commit_sha=RUNNING)
    code_host.says(relation)
    with pytest.raises(GateError, match=f"does not contain {REQUIRED}.*{relation}.*deploy LML"):
        await require_gate(gated(local_dev=True))


async def test_code_host_need_not_be_asked_about_the_same_commit(
    gated: Gated, simulator: Simulator, code_host: CodeHost
) -> None:
    simulator.health = Health(commit_sha=REQUIRED + "0" * 33)
    await require_gate(gated())
    assert not code_host.asked


async def test_unhealthy_lml_still_reports_its_commit(gated: Gated, simulator: Simulator) -> None:
    simulator.health = Health("unhealthy", commit_sha=RUNNING)
    await require_gate(gated())


@pytest.mark.parametrize("base", ["", "/", "/api/v1", "/api/v1/"])
async def test_health_is_at_the_root_of_lml(gated: Gated, lml: str, base: str) -> None:
    await require_gate(gated(library_metadata_url=lml + base))


@pytest.mark.parametrize("status", [400, 401, 403, 422, 500, 503])
async def test_route_that_answers_anything_is_mounted(
    gated: Gated, simulator: Simulator, status: int
) -> None:
    simulator.faults.add("status", status=status, endpoint="bulk")
    await require_gate(gated())


@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize(
    ("endpoint", "route"),
    [
        ("bulk", "bulk-resolve-libraries"),
        ("refresh", "refresh-for-identities"),
        ("mint", "identity/resolve"),
    ],
)
async def test_missing_route_of_an_lml_without_a_commit_shuts_the_gate(
    gated: Gated, simulator: Simulator, endpoint: str, route: str, status: int
) -> None:
    simulator.faults.add("status", status=status, endpoint=endpoint)
    with pytest.raises(GateError, match=rf"reports no commit and lacks .*{route} \({status}\)"):
        await require_gate(gated())
    await require_gate(gated(local_dev=True))


async def test_route_of_the_rotation_matters_only_for_warming(
    gated: Gated, simulator: Simulator
) -> None:
    simulator.faults.add("status", status=404, endpoint="refresh")
    await require_gate(gated(), routes=(Route.LIBRARY,))
    assert simulator.calls.counts["refresh"] == 0
    assert simulator.calls.rows["bulk"] == 0


@pytest.mark.parametrize(
    "fault", ["reset", "cut", "html", "truncated_json", "list_document", "huge_body", "redirect"]
)
async def test_unreadable_health_shuts_the_gate(
    gated: Gated, simulator: Simulator, fault: str
) -> None:
    details = {"size": 2**22} if fault == "huge_body" else {}
    simulator.faults.add(fault, endpoint="health", **details)
    with pytest.raises(GateError, match="LML"):
        await require_gate(gated(local_dev=True))


async def test_probe_without_an_answer_shuts_the_gate(gated: Gated, simulator: Simulator) -> None:
    simulator.faults.add("reset", endpoint="bulk")
    with pytest.raises(GateError, match="LML does not answer"):
        await require_gate(gated())


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "GITHUB_TOKEN"), (404, "does not know a commit"), (403, "GITHUB_TOKEN")],
)
async def test_refusing_code_host_shuts_the_gate(
    gated: Gated, simulator: Simulator, code_host: CodeHost, status: int, words: str
) -> None:
    simulator.health = Health(commit_sha=RUNNING)
    code_host.status = status
    with pytest.raises(GateError, match=f"the code host answered {status}.*{words}"):
        await require_gate(gated())


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"status": "sideways"}'])
async def test_silent_code_host_shuts_the_gate(
    gated: Gated, simulator: Simulator, code_host: CodeHost, body: bytes
) -> None:
    simulator.health = Health(commit_sha=RUNNING)
    code_host.body = body
    with pytest.raises(GateError, match="code host"):
        await require_gate(gated())


async def test_unreachable_code_host_shuts_the_gate(gated: Gated, simulator: Simulator) -> None:
    simulator.health = Health(commit_sha=RUNNING)
    with pytest.raises(GateError, match="the code host does not answer: Connection refused"):
        await require_gate(gated(gate_compare_url="http://127.0.0.1:1/{base}...{head}"))


async def test_each_token_goes_to_its_own_service_and_no_further(
    gated: Gated, simulator: Simulator, code_host: CodeHost, lml: str
) -> None:
    simulator.health = Health(commit_sha=RUNNING)
    code_host.status, code_host.location = 302, f"{lml}/elsewhere"
    with pytest.raises(GateError, match="answered 302") as caught:
        await require_gate(gated(github_token=HOST_KEY))
    assert [token for _, token in code_host.asked] == [f"Bearer {HOST_KEY}"]
    assert simulator.calls.counts == {"health": 1}
    assert "secret" not in str(caught.value)


async def test_without_a_commit_nothing_is_asked(gated: Gated, simulator: Simulator) -> None:
    await require_gate(gated(gate_commit_sha=None))
    assert not simulator.calls.counts


@pytest.mark.parametrize(
    "arguments", [("sweep",), ("sweep", "--dry-run"), ("backfill",), ("backfill", "--dry-run")]
)
def test_commands_end_before_they_ask_anything(
    db: Connection,
    listener: Commands,
    simulator: Simulator,
    code_host: CodeHost,
    arguments: tuple[str, ...],
) -> None:
    add_release(db)
    simulator.health = Health(commit_sha=RUNNING)
    code_host.says("behind")
    settings = {"GATE_COMMIT_SHA": REQUIRED, "GATE_COMPARE_URL": code_host.url}
    ran = listener.run(*arguments, GITHUB_TOKEN=HOST_KEY, **settings)
    assert ran.code == 2, ran.stderr
    assert ran.stderr.startswith("listener: the deploy gate is shut: LML runs ffff")
    assert "secret" not in ran.stderr + ran.stdout
    assert simulator.calls.counts == {"health": 1}
    assert outbox_size(db) == 1


def test_open_gate_allows_a_command(
    db: Connection, listener: Commands, simulator: Simulator, code_host: CodeHost
) -> None:
    add_release(db)
    simulator.health = Health(commit_sha=RUNNING)
    settings = {"GATE_COMMIT_SHA": REQUIRED, "GATE_COMPARE_URL": code_host.url}
    ran = listener.run("sweep", **settings)
    assert ran.code == 0, ran.stderr
    assert count(db, "library_identity") == 1


def test_daemon_does_not_follow_behind_a_shut_gate(
    db: Connection, start: Start, simulator: Simulator, code_host: CodeHost
) -> None:
    add_release(db)
    simulator.faults.add("status", status=404, endpoint="refresh")
    daemon = start(GATE_COMMIT_SHA=REQUIRED, GATE_COMPARE_URL=code_host.url)
    assert daemon.ended() == 2
    assert any("cache/refresh-for-identities (404)" in line for line in daemon.lines)
    assert not daemon.logged("following")
    assert outbox_size(db) == 1


def test_daemon_follows_behind_an_open_gate(
    db: Connection, start: Start, simulator: Simulator, code_host: CodeHost
) -> None:
    daemon = start(GATE_COMMIT_SHA=REQUIRED, GATE_COMPARE_URL=code_host.url).following()
    assert daemon.logged("the deploy gate is open") == 1
    assert daemon.stop() == 0


def test_daemon_stops_while_the_gate_waits(
    db: Connection, start: Start, simulator: Simulator, code_host: CodeHost
) -> None:
    simulator.gate.shut()
    daemon = start(GATE_COMMIT_SHA=REQUIRED, GATE_COMPARE_URL=code_host.url)
    simulator.calls.wait_for(1, "health")
    assert daemon.stop() == 0
    simulator.gate.open()


def test_daemon_without_a_gate_follows_although_lml_is_down(db: Connection, start: Start) -> None:
    assert start(LIBRARY_METADATA_URL="http://127.0.0.1:1").following().stop() == 0
