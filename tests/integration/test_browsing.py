"""The pages of releases, asked over real HTTP."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest

from tests.browsed import FakeCatalogue
from tests.integration.conftest import until
from tests.integration.test_site import TOKEN, site

PAGES = ("/search", "/search?q=can", "/library/1", "/lists", "/lists/parked", "/lists/parked.csv")
READING = ("/search?q=can", "/library/1", "/lists/parked", "/lists/parked.csv")


@pytest.mark.parametrize("path", PAGES)
async def test_token_is_needed(path: str) -> None:
    catalogue = FakeCatalogue()
    async with site(token=TOKEN, catalogue=catalogue) as client:
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, auth=("dj", TOKEN + "x"))).status_code == 401
        assert catalogue.asked == []
        assert (await client.get(path, auth=("dj", TOKEN))).status_code == 200


@pytest.mark.parametrize("path", PAGES)
async def test_pages_are_guarded_like_everything_else(path: str) -> None:
    async with site(hosts=frozenset({"localhost", "127.0.0.1"})) as client:
        reply = await client.get(path)
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "form-action 'self'" in policy
        assert reply.headers["cache-control"] == "no-store"
        assert (await client.post(path)).status_code == 405
        assert (await client.head(path)).status_code == 200
        other = await client.get(path, headers={"host": "evil.example"})
        assert other.status_code == 421


@pytest.mark.parametrize("path", READING)
async def test_lost_database_is_explained_on_a_page(path: str) -> None:
    async with site(catalogue=FakeCatalogue(fault="<b>nobody</b> answers")) as client:
        reply = await client.get(path)
    assert reply.status_code == 503
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "&lt;b&gt;nobody&lt;/b&gt; answers." in reply.text
    assert 'action="/search"' in reply.text


@pytest.mark.parametrize(
    "path",
    [
        "/library/0",
        "/library/2147483648",
        "/library/99999999999999999999999999",
        # More digits than Python turns into a number.
        f"/library/{'9' * 5000}",
        "/library/-1",
        "/library/abc",
        "/library/",
        "/lists/everything",
        "/lists/everything.csv",
        "/lists/parked?page=0",
        "/lists/parked?page=-1",
        "/lists/parked?page=x",
        "/lists/parked?page=1000001",
        "/lists/parked?page=%C2%B2",
        "/nowhere",
    ],
)
async def test_missing_page_is_answered_without_the_database(path: str) -> None:
    catalogue = FakeCatalogue()
    async with site(catalogue=catalogue) as client:
        reply = await client.get(path)
    assert reply.status_code == 404
    assert "Not found" in reply.text
    assert catalogue.asked == []


async def test_story_of_a_row_that_is_gone_is_not_found() -> None:
    async with site() as client:
        assert (await client.get("/library/3")).status_code == 200
        gone = await client.get("/library/4")
    assert gone.status_code == 404
    assert "4 of the library" in gone.text


async def test_words_are_searched_as_typed() -> None:
    catalogue = FakeCatalogue()
    async with site(catalogue=catalogue) as client:
        for typed in ("  Björk post ", "", "   ", "100% a_b", "a\0b", "ab" * 3000):
            reply = await client.get("/search", params={"q": typed})
            assert reply.status_code == 200
        broken = await client.get("/search?q=%ff%fe&q=other")
        assert broken.status_code == 200
    assert catalogue.asked == ["Björk post", "100% a_b", "a b", "ab" * 3000, "other"]


async def test_slow_search_suggests_a_remedy() -> None:
    async with site(catalogue=FakeCatalogue(obstacle="CREATE INDEX …")) as client:
        reply = await client.get("/search?q=can")
    assert reply.status_code == 503
    assert "CREATE INDEX" in reply.text


async def test_neither_words_nor_rows_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for catalogue in (FakeCatalogue(), FakeCatalogue(fault="gone"), FakeCatalogue(obstacle="slow")):
        async with site(catalogue=catalogue) as client:
            logging.getLogger("httpx").setLevel(logging.WARNING)
            logging.getLogger("httpcore").setLevel(logging.WARNING)
            for path in ("/search?q=a-secret-love", "/nowhere?q=a-secret-love", "/lists/parked"):
                await client.get(path)
    assert "a-secret-love" not in caplog.text
    assert "Tape" not in caplog.text


async def test_waiting_readers_delay_no_probe() -> None:
    catalogue = FakeCatalogue(gate=asyncio.Event())
    async with site(catalogue=catalogue) as client:
        readers = asyncio.gather(*(client.get(path) for path in READING * 5))
        await until(lambda: len(catalogue.asked) == len(READING) * 5)
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200
        assert catalogue.gate is not None
        catalogue.gate.set()
        assert {reply.status_code for reply in await readers} == {200}


async def test_list_is_downloaded_as_a_file() -> None:
    async with site(catalogue=FakeCatalogue(parts=3)) as client:
        reply = await client.get("/lists/parked.csv")
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert reply.headers["content-disposition"] == 'attachment; filename="parked.csv"'
    assert len(reply.text.splitlines()) == 3 * 1000 + 1


async def test_head_of_a_download_reads_no_more_than_its_first_part() -> None:
    catalogue = FakeCatalogue(parts=3)
    async with site(catalogue=catalogue) as client:
        reply = await client.head("/lists/parked.csv")
    assert (reply.status_code, reply.content) == (200, b"")
    assert reply.headers["content-disposition"] == 'attachment; filename="parked.csv"'
    await asyncio.wait_for(catalogue.closed.wait(), 10)
    # The last part would have asked.
    assert catalogue.asked == []


async def test_download_that_cannot_continue_fails_visibly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    catalogue = FakeCatalogue(parts=2, fault="the database is gone")
    async with site(catalogue=catalogue) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/lists/parked.csv")
    assert catalogue.closed.is_set()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_download_that_is_no_longer_read_ends() -> None:
    # More than the buffers of both sides take.
    catalogue = FakeCatalogue(parts=5_000)
    async with site(catalogue=catalogue) as client:
        async with client.stream("GET", "/lists/parked.csv") as reply:
            await anext(reply.aiter_raw())
        await asyncio.wait_for(catalogue.closed.wait(), 10)
    assert catalogue.asked == []
