"""The walk over all that is being played, on command."""

from __future__ import annotations

from collections.abc import Callable

from listener.app.commands import handle_leftovers
from listener.app.parts import Parts, open_parts
from listener.app.telemetry import open_telemetry
from listener.domain.change import Stream
from listener.domain.refreshing import RotationTally
from listener.engine.reconciler import RUN_BACKOFF
from listener.settings import Settings

_NAME = "listener-sweep"


async def run_walk(
    settings: Settings,
    tally: RotationTally,
    *,
    force: bool = False,
    expect: Callable[[int], None] | None = None,
) -> None:
    """Handle the changes of the rotation that no daemon follows, then refresh all that is played.

    Counts both in `tally`; `expect` gets the number of identities that the walk asks about. With
    `force` it does not matter how many rows lack one. Raises as `run_command` does, and
    `RunHaltedError` also if the walk refuses or another one goes on.
    """
    async with (
        open_telemetry(settings) as telemetry,
        open_parts(settings, _NAME, telemetry, RUN_BACKOFF) as parts,
    ):
        # What is refreshed from here on need not be refreshed twice.
        since = await parts.rotation().now()
        await _handle_changes(parts, tally)
        await parts.walker().run(since, cause="command", force=force, tally=tally, expect=expect)


async def count_walk(settings: Settings) -> int:
    """Return how many identities a walk would refresh; asks nothing."""
    async with open_parts(settings, _NAME) as parts:
        return await parts.walker().count(await parts.rotation().now())


async def _handle_changes(parts: Parts, tally: RotationTally) -> None:
    await parts.rotation().raise_unminted()
    warmer = parts.warmer()
    warmer.tally = tally
    await handle_leftovers(parts, Stream.ROTATION, parts.rotation_consumer(warmer))
