"""Refreshing and minting over real HTTP, whatever LML says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest

from listener.adapters.lml.client import LmlClient, LmlLimits, open_lml
from listener.domain.faults import BatchRefusedError, LmlRefusedError, LmlUnavailableError
from listener.domain.refreshing import Refreshed, RefreshStatus
from listener.simulator import IdentityMix, Simulator, simulator_thread

LIMITS = LmlLimits(
    connections=2,
    attempts=3,
    resolve_timeout=timedelta(seconds=5),
    refresh_timeout=timedelta(seconds=5),
    reply_bytes=2**18,
)


@pytest.fixture
def simulator() -> Simulator:
    """LML whose identities are warm, but for some."""
    overrides = {4: "not_found", 5: "not_implemented", 6: "error", 7: "from_a_newer_lml"}
    return Simulator(identities=IdentityMix(1, 0, overrides=overrides))


@pytest.fixture
def url(simulator: Simulator) -> Iterator[str]:
    """Yield the base URL of the simulator."""
    with simulator_thread(simulator) as address:
        yield address


@pytest.fixture
async def lml(url: str) -> AsyncIterator[LmlClient]:
    """Yield a client."""
    async with open_lml(url, None, LIMITS) as client:
        yield client


async def test_lmls_report_on_identities_is_translated(
    lml: LmlClient, simulator: Simulator
) -> None:
    said = await lml.refresh([1, 4, 5, 6, 7])
    artists = simulator.identities.artists_of(1)
    assert said == {
        1: Refreshed(1, RefreshStatus.WARMED, 1, artists, 1 + artists),
        4: Refreshed(4, RefreshStatus.NOT_FOUND),
        5: Refreshed(5, RefreshStatus.NOT_IMPLEMENTED, parts=1),
        6: Refreshed(6, RefreshStatus.ERROR, parts=1),
        7: Refreshed(7, RefreshStatus.ERROR, word="from_a_newer_lml"),
    }


@pytest.mark.parametrize(
    ("fault", "first"),
    [
        ("unknown_status", None),
        ("null_sources", Refreshed(1, RefreshStatus.WARMED)),
        ("null_source", Refreshed(1, RefreshStatus.WARMED)),
        ("null_artists", Refreshed(1, RefreshStatus.WARMED, 1, parts=1)),
        ("empty_artists", Refreshed(1, RefreshStatus.WARMED, 1, parts=1)),
    ],
)
async def test_odd_result_does_not_affect_the_others(
    lml: LmlClient, simulator: Simulator, fault: str, first: Refreshed | None
) -> None:
    simulator.faults.add(fault)
    said = await lml.refresh([1, 2, 3])
    assert said.keys() == {1, 2, 3}
    assert all(said[i].status is RefreshStatus.WARMED and said[i].artists for i in (2, 3))
    if first is None:
        assert (said[1].status, bool(said[1].word)) == (RefreshStatus.ERROR, True)
    else:
        assert said[1] == first


@pytest.mark.parametrize("fault", ["truncated_json", "list_document"])
async def test_malformed_reply_refuses_the_batch(
    lml: LmlClient, simulator: Simulator, fault: str
) -> None:
    simulator.faults.add(fault)
    with pytest.raises((BatchRefusedError, LmlUnavailableError)):
        await lml.refresh([1, 2])


async def test_refresh_is_tried_once_because_each_may_cost_discogs_calls(
    lml: LmlClient, simulator: Simulator
) -> None:
    simulator.faults.add("status", status=503)
    with pytest.raises(LmlUnavailableError):
        await lml.refresh([1])
    assert simulator.calls.counts["refresh"] == 1


async def test_more_than_fifty_are_refused_by_lml_itself(lml: LmlClient) -> None:
    with pytest.raises(BatchRefusedError):
        await lml.refresh(range(1, 52))


async def test_mint_returns_the_same_identity_each_time(
    lml: LmlClient, simulator: Simulator
) -> None:
    assert await lml.mint(12345) == await lml.mint(12345) == 100_001
    assert await lml.mint(12346) == 100_002


async def test_mint_is_retried_because_it_is_idempotent(
    lml: LmlClient, simulator: Simulator
) -> None:
    simulator.faults.add("status", status=502, calls=1)
    assert await lml.mint(12345) == 100_001


@pytest.mark.parametrize(
    ("status", "fault"),
    [(422, BatchRefusedError), (404, LmlRefusedError), (503, LmlUnavailableError)],
)
async def test_mint_fails_like_any_call(
    lml: LmlClient, simulator: Simulator, status: int, fault: type[Exception]
) -> None:
    simulator.faults.add("status", status=status, endpoint="mint")
    with pytest.raises(fault):
        await lml.mint(12345)
