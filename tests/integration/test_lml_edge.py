"""What LML's edge may send, over real connections: too much, twice, or with cookies."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import pytest

from listener.adapters.lml.client import LmlLimits, open_lml
from listener.domain.faults import CallInterruptedError, LmlUnavailableError
from listener.domain.question import Question
from listener.domain.verdict import Verdict

MIB = 2**20
MOST_MIB = 250
TIMES, FEWER = 65, 5
REPORTED = ("plain", "gzip", "gzip of gzip", "numbers")
# A page of 500 is parsed and validated in a few hundredths of this.
LONGEST_TURN = 1.0

LIMITS = LmlLimits(
    connections=1,
    attempts=1,
    resolve_timeout=timedelta(seconds=10),
    refresh_timeout=timedelta(seconds=10),
    reply_bytes=MIB,
)
Answer = Callable[[bytes, bytes], Iterator[bytes]]


@contextmanager
def edge(answer: Answer) -> Iterator[str]:
    """Yield the URL of what answers, by head and body of a request, with the pieces it is given."""

    class Edge(StreamRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):
                while request := self.request_read():
                    for piece in answer(*request):
                        self.wfile.write(piece)

        def request_read(self) -> tuple[bytes, bytes] | None:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                if not (line := self.rfile.readline()):
                    return None
                head += line
            fields = dict(
                line.lower().split(b":", 1) for line in head.splitlines() if b": " in line
            )
            return head, self.rfile.read(int(fields.get(b"content-length", 0)))

    class Server(ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Edge) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving.join()


def reply(body: bytes, *headers: bytes, times: int = 1) -> Iterator[bytes]:
    """Yield a reply that repeats `body` the given number of times."""
    fields = [b"content-length: %d" % (len(body) * times), *headers]
    yield b"\r\n".join([b"HTTP/1.1 200 OK", b"content-type: application/json", *fields, b"", b""])
    for _ in range(times):
        yield body


def squeezed(data: bytes) -> bytes:
    squeeze = zlib.compressobj(9, wbits=31)
    return squeeze.compress(data) + squeeze.flush()


def bomb(mebibytes: int) -> bytes:
    """Return gzip of the given MiB of zeros: a flushed block may be repeated."""
    squeeze = zlib.compressobj(9, wbits=-15)
    block = squeeze.compress(bytes(MIB)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return squeezed(b"")[:10] + block * mebibytes


GZIP = b"content-encoding: gzip"
# What is sent, and how often in one reply; made on demand, because it is large.
SHAPES: dict[str, Callable[[], tuple[bytes, int, tuple[bytes, ...]]]] = {
    "plain": lambda: (b'{"results":[' + b" " * (MIB - 12), 73, ()),
    "gzip": lambda: (bomb(1024), 1, (GZIP,)),
    "gzip of gzip": lambda: (squeezed(bomb(1024)), 1, (b"content-encoding: gzip, gzip",)),
    "gzip twice": lambda: (squeezed(bomb(1024)), 1, (GZIP, GZIP)),
    "numbers": lambda: (b'{"results":[' + b"1," * (30 * MIB) + b"1]}", 1, ()),
    "objects": lambda: (b'{"results":[' + b"{}," * (20 * MIB) + b"{}]}", 1, ()),
    "depth": lambda: (b'{"results":' + b"[" * (40 * MIB), 1, ()),
    "names": lambda: (b'{"results":[{' + names(180_000) + b"}]}", 1, ()),
    "text": lambda: (result(b"\xf0\x9f\x98\x80" + b"a" * (9 * MIB)) + b'"}]}', 1, ()),
    "no results": lambda: (b'{"other":"' + b"a" * (15 * MIB) + b'"}', 1, ()),
    "cut": lambda: (result(b"a" * (15 * MIB)), 1, ()),
}


def names(count: int) -> bytes:
    return b",".join(b'"%d":1' % number for number in range(count))


def result(kind: bytes) -> bytes:
    return b'{"results":[{"library_id":1,"kind":"' + kind


def used(url: str, what: str, times: int) -> dict[str, Any]:
    """Return what it takes a process to ask so often."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.hungry", url, what, str(times)],
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.timeout(180)
@pytest.mark.parametrize("what", ["rows", "tracks", "refresh", "mint"])
@pytest.mark.parametrize("shape", SHAPES)
def test_memory_is_bounded_whatever_is_sent(shape: str, what: str) -> None:
    body, repeats, headers = SHAPES[shape]()
    times = TIMES if what == "rows" and shape in REPORTED else FEWER
    with edge(lambda _head, _body: reply(body, *headers, times=repeats)) as url:
        found = used(url, what, times)
    assert found["peak"] <= MOST_MIB, found
    assert found["turn"] <= LONGEST_TURN, found
    unreadable = "TracksRefusedError" if what == "tracks" else "CallInterruptedError"
    readable = shape in {"names", "text"} and what != "mint" and not found["failures"]
    assert readable or (found["failures"], found["kinds"]) == (times, [unreadable]), found


# Nearly as many values as a reply about 200 compilations may have; those of the second are kept.
LARGEST: dict[str, Callable[[], bytes]] = {
    "objects": lambda: of_releases(1_900, 120, lambda n: b'{"%d":1}' % n),
    "credits": lambda: of_releases(
        190, 820, lambda n: b'{"artist_name":"%d","track_title":"%d"}' % (n, n)
    ),
}


def of_releases(releases: int, credited: int, credit: Callable[[int], bytes]) -> bytes:
    """Return a reply about compilations, each with the given number of different credits."""
    found = (
        b'{"library_id":%d,"kind":"compilation","tracks_attempted":true,"tracks":[%s]}'
        % (row, b",".join(map(credit, range(row * credited, (row + 1) * credited))))
        for row in range(1, releases + 1)
    )
    return b'{"tracks_contract_version":1,"results":[%s]}' % b",".join(found)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("shape", LARGEST)
def test_memory_is_bounded_when_the_largest_batches_are_answered_at_once(shape: str) -> None:
    body = LARGEST[shape]()
    with edge(lambda _head, _body: reply(body)) as url:
        found = used(url, "most", 3)
    assert not found["failures"], found
    assert found["peak"] <= MOST_MIB, found
    assert found["turn"] <= LONGEST_TURN, found


def verdict(row: int, qid: str) -> dict[str, Any]:
    return {
        "library_id": row,
        "kind": "single_artist",
        "main": {"wikidata_qid": qid},
        "method": "exact_match",
        "confidence": 1,
        "provenance": [],
    }


def answer(body: bytes) -> bytes:
    """Answer honestly: the artist's name is its identity."""
    asked = json.loads(body)["inputs"]
    found = [verdict(each["library_id"], each["artist_name"]) for each in asked]
    return json.dumps({"results": found}).encode()


async def identities(url: str, names: Sequence[str]) -> list[str | None]:
    """Return what is found for one row under one name after the other."""
    found = []
    async with open_lml(url, None, LIMITS) as lml:
        for name in names:
            (result,) = await (await lml.ask([Question(7, name, "Album", None, b"")])).read()
            assert isinstance(result, Verdict)
            assert result.identity is not None
            found.append(result.identity.wikidata_qid)
    return found


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("late", [False, True])
async def test_reply_that_is_sent_twice_answers_no_other_question(copies: int, late: bool) -> None:
    def twice(_head: bytes, body: bytes) -> Iterator[bytes]:
        whole = b"".join(reply(answer(body)))
        if not late:
            yield whole * copies
            return
        yield whole
        # In a segment of its own: on a connection that is kept it would wait there to be read.
        yield whole * (copies - 1)

    names = ["Old name", "New name", "Newest name", "Old name"]
    with edge(twice) as url:
        assert await identities(url, names) == names


async def test_host_that_no_proxy_names_is_reached_directly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with edge(lambda _head, body: reply(answer(body))) as url:
        with pytest.raises(LmlUnavailableError):
            await identities(url, ["a"])
        monkeypatch.setenv("no_proxy", "[::1],fd00::/8,127.0.0.0/8")
        assert await identities(url, ["a"]) == ["a"]


async def test_cookies_are_not_sent_back() -> None:
    heads: list[bytes] = []

    def setting(head: bytes, body: bytes) -> Iterator[bytes]:
        heads.append(head)
        return reply(
            answer(body), *(b"set-cookie: c%d=%s; Path=/" % (n, b"x" * 900) for n in range(9))
        )

    with edge(setting) as url:
        await identities(url, ["a", "b", "c"])
    assert len(heads) == 3
    assert not any(b"\r\ncookie:" in head.lower() for head in heads)


async def test_only_one_encoding_is_requested() -> None:
    heads: list[bytes] = []

    def recording(head: bytes, body: bytes) -> Iterator[bytes]:
        heads.append(head.lower())
        return reply(squeezed(answer(body)), GZIP)

    with edge(recording) as url:
        assert await identities(url, ["a"]) == ["a"]
    assert b"accept-encoding: gzip\r\n" in heads[0]


@pytest.mark.parametrize("location", [b"http://xn--e28h.invalid/", b"http://[::1/", b"http://h:x/"])
async def test_redirect_that_is_invalid_is_not_blamed_on_a_row(location: bytes) -> None:
    def redirecting(_head: bytes, _body: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: %s\r\n\r\n" % location

    with edge(redirecting) as url, pytest.raises((LmlUnavailableError, CallInterruptedError)):
        await identities(url, ["a"])
