"""The daemon: follows both streams, and runs the scheduled searches and walks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

import structlog

from listener.adapters.host import Ending, notify
from listener.adapters.postgres.inventory import misdirected_keys, uncaptured_streams
from listener.adapters.postgres.outbox import LaneTimes, PostgresLanes
from listener.adapters.postgres.store import Store
from listener.adapters.schedule import ApschedulerBell
from listener.app.parts import open_parts, open_telemetry
from listener.app.serving import open_site, open_socket
from listener.app.start import announce, require_gate, require_installation
from listener.app.state import DaemonState, Workers, informing_systemd
from listener.app.streams import LibraryParts, RotationParts
from listener.domain.change import Stream
from listener.domain.due import RunKind
from listener.domain.pulse import LaneReport
from listener.domain.refreshing import RefreshStatus
from listener.engine.circuit import Circuit
from listener.engine.consumer import Consumer
from listener.engine.reconciler import Reconciler
from listener.engine.resolver import Resolver
from listener.engine.routine import Job, Routine
from listener.engine.supervisor import Supervisor
from listener.engine.telemetry import TelemetryFanOut
from listener.engine.warmer import Warmer
from listener.engine.watch import CaptureWatch
from listener.settings import Settings

Audit = Callable[[str], Awaitable[None]]
_log = structlog.stdlib.get_logger()

_LET_CHANGES_GO_FIRST = timedelta(minutes=5)
# No two jobs that use LML begin in the same minute, ours or the backend's: its jobs begin on the
# quarter hours, and 10, 17 and 47 minutes past the hour.
SWEEP_BEGINS = timedelta(minutes=23)
AUDIT_BEGINS = timedelta(hours=2, minutes=41)


async def run_daemon(settings: Settings, ending: Ending) -> None:
    """Follow both streams until SIGTERM or SIGINT.

    Raises `InstallationError` if the database is not ready for this version, `GateError` if LML is
    older than it must be, `FixableError` if HTTP_BIND cannot be listened on.
    """
    announce(settings)
    stop = asyncio.Event()

    def end() -> None:
        notify("STOPPING=1")
        stop.set()

    ending.calls(end)
    state = DaemonState(settings.ready_max_lag, stop)
    bound = open_socket(settings)
    async with (
        open_telemetry(settings) as sentry,
        open_site(settings, bound, state) as metrics,
    ):
        # A full collection would scan every module again and stop the loop for 60 ms.
        gc.freeze()
        await _follow(settings, TelemetryFanOut(metrics, sentry), state, stop)
    ending.hurry()


async def _follow(
    settings: Settings, telemetry: TelemetryFanOut, state: DaemonState, stop: asyncio.Event
) -> None:
    await require_installation(settings, stop)
    await require_gate(settings, stop)
    async with open_parts(settings, telemetry=telemetry) as parts:
        of_library, of_rotation = LibraryParts(parts), RotationParts(parts)
        resolver, warmer = of_library.resolver(), of_rotation.warmer()
        library, rotation = of_library.consumer(resolver), of_rotation.consumer(warmer)
        routine, audit = _routine(of_library, library)
        capture = _capture_watch(parts.store, audit)
        beside_library = [
            routine.run,
            capture.run,
            of_library.watch_releases,
            *(retrier.run for retrier in of_library.retriers(resolver.tally)),
        ]
        beside_rotation = [
            _rotation_routine(of_rotation, rotation).run,
            of_rotation.retrier(warmer).run,
        ]
        followers = {library: beside_library, rotation: beside_rotation}
        consumers = {Stream.LIBRARY: library, Stream.ROTATION: rotation}
        lanes = PostgresLanes(
            parts.store.database,
            LaneTimes(),
            lambda stream: _lane_report(consumers[stream], parts.circuits[stream]),
        )
        workers = Workers(parts, resolver, capture, consumers)
        async with state.watching(workers, telemetry), informing_systemd(state):
            with telemetry.windows(resolver.tally):
                await Supervisor(lanes, followers, settings.shutdown_timeout).run(stop)
        _report(library, resolver, warmer)


def _lane_report(consumer: Consumer, circuit: Circuit) -> LaneReport:
    pulse = consumer.pulse()
    return LaneReport(
        breaker=circuit.state,
        fault=consumer.fault,
        stalled=pulse.stalled if pulse is not None else timedelta(),
        lml_trouble=None if circuit.fault is None else circuit.fault.cause,
        lml_pause=circuit.paused_for(),
    )


def _routine(joined: LibraryParts, library: Consumer) -> tuple[Routine, Audit]:
    # In the daemon that follows the library: its calls and those for changes are counted together.
    settings, reconciler = joined.parts.settings, joined.reconciler()
    sweep, audit = _sweep(joined, reconciler), _audit(joined, reconciler, library)

    async def scheduled(cause: str, _slot: datetime) -> None:
        await audit(cause)

    jobs = [
        Job("sweep", settings.sweep_interval, sweep, begins=SWEEP_BEGINS),
        Job("audit", settings.audit_interval, scheduled, at_start=True, begins=AUDIT_BEGINS),
    ]
    return _of(joined.parts.store, jobs), audit


def _sweep(
    joined: LibraryParts, reconciler: Reconciler
) -> Callable[[str, datetime], Awaitable[None]]:
    housekeeping = joined.parts.store.housekeeping()

    async def sweep(cause: str, _slot: datetime) -> None:
        # After a reconnection, the server may be a logical copy.
        raised = await housekeeping.raise_sequences()
        if raised:
            _log.warning("sequences lagged behind their rows, as after a copy", raised=raised)
        # Without LML the search ends early and is retried, which still bounds the outbox.
        coalesced = await housekeeping.coalesce()
        if coalesced:
            _log.info("reduced the outbox to one change per row", removed=coalesced)
        tally = await reconciler.run(RunKind.REFRESH, joined.scope, cause=cause)
        _log.info("asked about due rows", **tally.fields())
        await housekeeping.analyze_tracks(tally)

    return sweep


def _audit(joined: LibraryParts, reconciler: Reconciler, library: Consumer) -> Audit:
    housekeeping, due = joined.parts.store.housekeeping(), joined.parts.store.due()

    async def audit(cause: str) -> None:
        # The audit skips rows that wait in the outbox.
        await _let_changes_go_first(library)
        kind = RunKind.AUDIT
        if await due.none_asked():
            _log.info("LML was never asked, starting the backfill")
            kind = RunKind.BACKFILL
        tally = await reconciler.run(kind, joined.scope, cause=cause)
        level = _log.warning if tally.capture_missed else _log.info
        level("checked every row", **tally.fields())
        await housekeeping.analyze_tracks(tally)
        cleared = await housekeeping.clear()
        if cleared:
            _log.info("cleared deleted releases from the ledger", rows=cleared)

    return audit


def _of(store: Store, jobs: Sequence[Job]) -> Routine:
    bell = ApschedulerBell(
        {job.name: job.every for job in jobs}, {job.name: job.begins for job in jobs}
    )
    return Routine(jobs, store.slots(), bell)


def _capture_watch(store: Store, audit: Audit) -> CaptureWatch:
    rotation = store.rotation()

    async def catch_up(stream: Stream) -> None:
        match stream:
            case Stream.LIBRARY:
                await audit("capture")
            case Stream.ROTATION:
                # Changed rows that have an identity are refreshed by the next walk.
                await rotation.raise_unminted()

    where = store.pool, store.database.backend
    look, misdirected = partial(uncaptured_streams, *where), partial(misdirected_keys, *where)
    return CaptureWatch(look, catch_up, misdirected)


async def _let_changes_go_first(consumer: Consumer) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_LET_CHANGES_GO_FIRST.total_seconds()):
            await consumer.resting.wait()


def _rotation_routine(joined: RotationParts, changes: Consumer) -> Routine:
    # Beside the changes of the rotation: a daemon that loses that lane loses the walk with it.
    store, walker = joined.parts.store, joined.walker()
    rotation = store.rotation()

    async def walk(cause: str, slot: datetime) -> None:
        unminted = await rotation.raise_unminted()
        if unminted:
            _log.info("requesting new identities", rows=unminted)
        await _let_changes_go_first(changes)
        # Skip what was refreshed since the slot began: an interrupted walk continues.
        tally = await walker.run(slot, cause=cause)
        _log.info("refreshed the rotation", **tally.fields())

    at = joined.parts.settings.rotation_warm_at
    if at is None:
        return _of(store, [])
    begins = timedelta(hours=at.hour, minutes=at.minute)
    return _of(store, [Job("rotation", timedelta(days=1), walk, begins=begins)])


def _report(library: Consumer, resolver: Resolver, warmer: Warmer) -> None:
    lag = library.claim_lag
    _log.info(
        "stopped",
        **resolver.tally.fields(),
        identities_warmed=warmer.tally.with_status(RefreshStatus.WARMED),
        identities_failed=warmer.tally.with_status(RefreshStatus.ERROR),
        rows_minted=warmer.tally.mints["minted"],
        mints_raced=warmer.tally.mints["raced"],
        changes_claimed=lag.count,
        claim_lag_ms_p50=round(lag.quantile(0.5).total_seconds() * 1000, 1),
        claim_lag_ms_p99=round(lag.quantile(0.99).total_seconds() * 1000, 1),
        claim_lag_ms_max=round(lag.longest.total_seconds() * 1000, 1),
    )
