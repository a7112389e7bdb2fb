"""Asking over real HTTP, as far as the simulator's faults do not cover it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from listener.adapters.lml.client import LmlLimits, open_lml
from listener.domain.question import Question

LIMITS = LmlLimits(
    connections=2,
    attempts=1,
    resolve_timeout=timedelta(seconds=15),
    refresh_timeout=timedelta(seconds=15),
    reply_bytes=2**20,
)


@pytest.mark.parametrize("ticks", range(12))
async def test_call_that_is_cancelled_while_it_connects_ends(ticks: int) -> None:
    open_ends: list[asyncio.StreamWriter] = []

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ends.append(writer)

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, open_lml(f"http://127.0.0.1:{port}", None, LIMITS) as lml:
        asking = asyncio.get_running_loop().create_task(
            lml.ask([Question(1, "Stereolab", "Dots and Loops", None, b"")])
        )
        for _ in range(ticks):
            await asyncio.sleep(0)
        asking.cancel()
        done, _ = await asyncio.wait((asking,), timeout=2)
        for writer in open_ends:
            writer.transport.abort()
        assert done, "the cancellation was lost"
        assert asking.cancelled()
        # A connection may have been on its way still.
        await asyncio.sleep(0.01)
        for writer in open_ends:
            writer.close()
