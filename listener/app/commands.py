"""The commands that ask about due rows once: sweep and backfill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from listener.adapters.postgres.outbox import LaneTimes, PostgresLanes
from listener.adapters.postgres.runs import read_pace
from listener.app.parts import Parts, open_parts, open_telemetry
from listener.app.start import check_installation, require_gate
from listener.app.streams import LibraryParts, RotationParts
from listener.domain.change import Stream
from listener.domain.due import RunKind, Scope
from listener.domain.faults import (
    LaneLostError,
    LmlUnavailableError,
    StoreUnavailableError,
    first_of,
)
from listener.domain.gate import Route
from listener.domain.refreshing import RotationTally
from listener.domain.tally import Tally
from listener.engine.consumer import Consumer
from listener.engine.reconciler import RUN_BACKOFF, RunHaltedError
from listener.settings import Settings

_log = structlog.stdlib.get_logger()

# How long LML takes for a full batch, until one of our runs has measured it.
_USUAL_CALL = timedelta(seconds=1.9)
_WALK = "listener-sweep"


@dataclass(frozen=True, slots=True)
class Command:
    """One requested run: `limit` bounds the rows; a `dry` one writes nothing.

    With `leftovers` the changes of the library that no daemon follows are handled first.
    """

    kind: RunKind
    scope: Scope
    limit: int | None = None
    dry: bool = False
    leftovers: bool = False

    @property
    def name(self) -> str:
        """What the run is called on dashboards."""
        return f"dry {self.kind.value}" if self.dry else self.kind.value


@dataclass(frozen=True, slots=True)
class Forecast:
    """Estimate of a run; `rows` includes the compilations."""

    rows: int
    compilations: int
    calls: int
    call: timedelta
    in_flight: int

    @property
    def duration(self) -> timedelta:
        """How long the run would take."""
        return self.calls * self.call / self.in_flight


async def require_ready(settings: Settings, routes: Sequence[Route], *, dry: bool = False) -> None:
    """Return if the database is ready, and LML new enough for the routes that will be called.

    With `dry` the database is left unchanged. Raises `InstallationError` or `GateError`.
    """
    await check_installation(settings, dry=dry)
    if routes:
        await require_gate(settings, routes=routes)


async def run_command(
    settings: Settings,
    command: Command,
    tally: Tally,
    expect: Callable[[int], None] | None = None,
) -> None:
    """Make one run, counting in `tally`; `expect`, if given, receives the number of due rows.

    Raises `RunHaltedError` if LML or the database fails repeatedly, `StoreUnavailableError` if the
    database is lost.
    """
    async with open_telemetry(settings) as telemetry:
        name = f"listener-{command.kind.value}"
        async with open_parts(settings, name, telemetry, RUN_BACKOFF) as parts:
            with telemetry.run(command.name, tally):
                await _run(parts, command, tally, expect)


async def forecast(settings: Settings, kind: RunKind, scope: Scope) -> Forecast:
    """Estimate a run without asking LML."""
    async with open_parts(settings, "listener-plan") as parts:
        library = LibraryParts(parts)
        found = await library.reconciler().count(kind, scope)
        pace = await read_pace(parts.store.pool, parts.store.database.backend)
    calls = -(-found[False] // library.batch_size) - (-found[True] // settings.va_batch_size)
    return Forecast(
        rows=found[False] + found[True],
        compilations=found[True],
        calls=calls,
        # LML works on one batch's rows at a time: two batches take twice as long each.
        call=pace or _USUAL_CALL * parts.permits.for_patient,
        in_flight=parts.permits.for_patient,
    )


async def run_walk(
    settings: Settings,
    tally: RotationTally,
    *,
    force: bool = False,
    expect: Callable[[int], None] | None = None,
) -> None:
    """Handle rotation changes that no daemon follows, then refresh the whole rotation.

    Counts both in `tally`; `expect` receives the number of identities that the walk asks about.
    `force` ignores how many rows lack one. Raises as `run_command` does, and `RunHaltedError` also
    if the walk refuses to start or another one is running.
    """
    async with (
        open_telemetry(settings) as telemetry,
        open_parts(settings, _WALK, telemetry, RUN_BACKOFF) as parts,
    ):
        # An identity that is refreshed from here on need not be refreshed again.
        since = await parts.store.rotation().now()
        await _handle_rotation_changes(parts, tally)
        walker = RotationParts(parts).walker()
        await walker.run(since, cause="command", force=force, tally=tally, expect=expect)


async def count_walk(settings: Settings) -> int:
    """Return how many identities a walk would refresh, without asking LML."""
    async with open_parts(settings, _WALK) as parts:
        return await RotationParts(parts).walker().count(await parts.store.rotation().now())


async def _run(
    parts: Parts, command: Command, tally: Tally, expect: Callable[[int], None] | None
) -> None:
    library = LibraryParts(parts)
    if command.kind is RunKind.SWEEP and not command.dry:
        await library.note_release()
    if command.leftovers:
        resolver = library.resolver()
        resolver.tally = tally
        await _handle_leftovers(parts, Stream.LIBRARY, library.consumer(resolver))
    reconciler = library.reconciler(dry=command.dry, insisting=command.kind is RunKind.RECHECK)
    if expect is not None:
        rows = sum((await reconciler.count(command.kind, command.scope)).values())
        expect(rows if command.limit is None else min(rows, command.limit))
    await reconciler.run(
        command.kind, command.scope, cause="command", limit=command.limit, tally=tally
    )
    if command.dry:
        return
    housekeeping = parts.store.housekeeping()
    await housekeeping.analyze_tracks(tally)
    if command.leftovers:
        await housekeeping.clear()


async def _handle_leftovers(parts: Parts, stream: Stream, consumer: Consumer) -> None:
    """Handle the changes of a stream, unless a daemon follows it; raises `RunHaltedError`."""
    lanes = PostgresLanes(parts.store.database, LaneTimes())
    try:
        async with lanes.hold(stream, wait=False) as lane:
            await consumer.catch_up(lane)
    except (LaneLostError, BaseExceptionGroup) as error:
        fault = first_of(error)
        if not isinstance(fault, LaneLostError):
            raise fault from error
        _log.info("a daemon follows the changes, leaving them to it", stream=str(stream))
    except (LmlUnavailableError, StoreUnavailableError) as fault:
        raise RunHaltedError(f"changes of {stream} could not be handled: {fault}") from fault


async def _handle_rotation_changes(parts: Parts, tally: RotationTally) -> None:
    await parts.store.rotation().raise_unminted()
    rotation = RotationParts(parts)
    warmer = rotation.warmer()
    warmer.tally = tally
    await _handle_leftovers(parts, Stream.ROTATION, rotation.consumer(warmer))
