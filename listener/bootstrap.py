"""Joins settings, adapters and engine into the commands."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
from datetime import timedelta

import structlog

from listener.adapters.lml.client import LmlLimits, open_lml
from listener.adapters.postgres.connection import Database, open_pool
from listener.adapters.postgres.installation import (
    InstallationError,
    UnreachableError,
    installing,
    missing_parts,
)
from listener.adapters.postgres.lanes import LaneTimes, PostgresLanes
from listener.adapters.postgres.library import PostgresLibrary
from listener.adapters.postgres.outbox import PostgresOutbox
from listener.adapters.postgres.rotation import PostgresRotation
from listener.adapters.postgres.verdicts import AskAgain, PostgresVerdicts
from listener.domain.change import Stream
from listener.domain.pacing import Backoff
from listener.domain.room import RoomLimits
from listener.engine.consumer import Consumer, ConsumerLimits
from listener.engine.resolver import Resolver
from listener.engine.supervisor import Supervisor, until
from listener.engine.warmer import LML_REFRESH_BATCH_CAP, Warmer
from listener.settings import Settings

_log = structlog.stdlib.get_logger()

# Beside the batches that LML is asked about, those being read and written: no call waits for them.
_BATCHES_ASIDE = 3
# Batches waiting to be handled at all.
_BATCHES_WAITING = 4
_REFRESH_CALLS = 1
# Beside those of the batches: one for each feeder, one for the rotation lane.
_OTHER_SESSIONS = 3
_CONNECT = Backoff(first=timedelta(seconds=0.5), most=timedelta(seconds=15))


async def run_daemon(settings: Settings) -> None:
    """Follow both streams until SIGTERM or SIGINT; a second signal ends the process at once.

    Raises `InstallationError` if the database is not ready for this version.
    """
    # A full collection would look through every module again, and stop the loop for 60 ms.
    gc.freeze()
    stop = asyncio.Event()
    _stop_on_signals(stop)
    await _require_installation(settings, stop)
    database = Database(
        dsn=settings.database_url.get_secret_value(),
        backend=settings.wxyc_schema_name,
        holder=f"listener {secrets.token_hex(4)}",
    )
    limits = _lml_limits(settings)
    key = settings.lml_api_key.get_secret_value() if settings.lml_api_key else None
    async with (
        open_pool(
            database, size=settings.lml_max_concurrent + _BATCHES_ASIDE + _OTHER_SESSIONS
        ) as pool,
        open_lml(str(settings.library_metadata_url), key, limits) as lml,
    ):
        backend = database.backend
        outbox = PostgresOutbox(pool, backend)
        ask_again = AskAgain(
            resolved=timedelta(days=settings.stale_threshold_days),
            unresolved=timedelta(days=settings.unresolved_retry_days),
        )
        verdicts = PostgresVerdicts(pool, backend, ask_again)
        resolver = Resolver(PostgresLibrary(pool, backend), lml, verdicts, outbox)
        warmer = Warmer(PostgresRotation(pool, backend), lml, outbox)
        library = Consumer(Stream.LIBRARY, outbox, resolver.handle, _library_limits(settings))
        rotation = Consumer(Stream.ROTATION, outbox, warmer.handle, _rotation_limits(settings))
        supervisor = Supervisor(
            PostgresLanes(database, LaneTimes()),
            [(Stream.LIBRARY, library), (Stream.ROTATION, rotation)],
            settings.shutdown_timeout,
        )
        await supervisor.run(stop)
        _report(library, resolver, warmer)


def _report(library: Consumer, resolver: Resolver, warmer: Warmer) -> None:
    lag = library.claim_lag
    _log.info(
        "stopped",
        **resolver.tally.fields(),
        identities_warmed=warmer.statuses["warmed"],
        changes_claimed=lag.count,
        claim_lag_ms_p50=round(lag.quantile(0.5).total_seconds() * 1000, 1),
        claim_lag_ms_p99=round(lag.quantile(0.99).total_seconds() * 1000, 1),
        claim_lag_ms_max=round(lag.longest.total_seconds() * 1000, 1),
    )


def _library_limits(settings: Settings) -> ConsumerLimits:
    in_flight = settings.lml_max_concurrent + _BATCHES_ASIDE
    return _limits(settings, settings.batch_size, in_flight)


def _rotation_limits(settings: Settings) -> ConsumerLimits:
    return _limits(settings, LML_REFRESH_BATCH_CAP, _REFRESH_CALLS)


def _limits(settings: Settings, batch_size: int, in_flight: int) -> ConsumerLimits:
    room = RoomLimits(
        capacity=batch_size * (in_flight + _BATCHES_WAITING),
        batch_size=batch_size,
        linger=settings.linger,
        cool_down=settings.reask_after,
    )
    return ConsumerLimits(room, in_flight, settings.poll_interval)


def _lml_limits(settings: Settings) -> LmlLimits:
    return LmlLimits(
        concurrency=settings.lml_max_concurrent,
        attempts=settings.lml_attempts,
        resolve_timeout=settings.lml_timeout,
        refresh_timeout=timedelta(milliseconds=settings.backfill_lml_batch_timeout_ms),
        reply_bytes=settings.lml_max_reply_bytes,
    )


async def _require_installation(settings: Settings, stop: asyncio.Event) -> None:
    failures = 0
    while not stop.is_set():
        try:
            missing = await asyncio.to_thread(_missing, settings)
        except UnreachableError as error:
            failures += 1
            _log.warning("database unavailable", reason=str(error), failures=failures)
            await until(stop, asyncio.sleep(_CONNECT.delay(failures).total_seconds()))
            continue
        if missing:
            message = f"not installed: {', '.join(missing)}; run `listener migrate`"
            raise InstallationError(message)
        return


def _missing(settings: Settings) -> list[str]:
    with installing(settings.database_url.get_secret_value()) as connection:
        return [part.label for part in missing_parts(connection, settings.wxyc_schema_name)]


def _stop_on_signals(stop: asyncio.Event) -> None:
    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            # Asked twice: whatever is in flight is still in the outbox.
            os._exit(128 + number)
        _log.info("stopping", signal=number.name)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
