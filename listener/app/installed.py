"""Whether the database is ready for this version."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from listener.adapters.postgres.history import look_at_history, warn_of
from listener.adapters.postgres.installation import (
    installing,
    newer_version,
    raise_sequences,
    require_installed,
)
from listener.domain.faults import StoreUnavailableError, first_of
from listener.domain.finding import GRANT
from listener.domain.pacing import Backoff
from listener.engine.supervisor import until
from listener.settings import Settings

_log = structlog.stdlib.get_logger()

_CONNECT = Backoff(first=timedelta(seconds=0.5), most=timedelta(seconds=15))


async def require_installation(settings: Settings, stop: asyncio.Event) -> None:
    """Return once the database is reachable and ready, or `stop` is set.

    Raises `InstallationError` if it is reachable but not ready.
    """
    failures = 0
    while not stop.is_set():
        try:
            await until(stop, check_installation(settings))
        except BaseExceptionGroup as error:
            fault = first_of(error)
            if not isinstance(fault, StoreUnavailableError):
                raise fault from None
            failures += 1
            _log.warning(fault.event, reason=str(fault), failures=failures)
            await until(stop, asyncio.sleep(_CONNECT.delay(failures).total_seconds()))
            continue
        return


async def check_installation(settings: Settings, *, dry: bool = False) -> None:
    """Raise `InstallationError` if the database is not ready for this version.

    Raises `StoreUnavailableError` if it cannot be used.
    Logs triggers that do not work; without a history, verdicts are still written.
    Sequences that a logical copy left behind its rows are brought up to them, unless `dry`.
    """
    async with installing(settings.database_url.get_secret_value(), GRANT) as connection:
        missing = await require_installed(connection, settings.wxyc_schema_name)
        raised = [] if dry else await raise_sequences(connection, settings.wxyc_schema_name)
        newer = await newer_version(connection)
        history = await look_at_history(connection, settings.wxyc_schema_name)
    if newer is not None:
        _log.info("a newer version installed this database", version=newer)
    if raised:
        _log.warning("sequences lagged behind their rows, as after a copy", raised=raised)
    if missing:
        # The audits find what the triggers miss.
        _log.error(
            "changes are not captured, run `listener migrate`",
            parts=", ".join(part.label for part in missing),
        )
    warn_of(history)
