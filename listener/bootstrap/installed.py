"""Whether the database is ready for this version."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from listener.adapters.postgres.history import look_at_history, tell
from listener.adapters.postgres.installation import (
    InstallationError,
    UnreachableError,
    installing,
    missing_parts,
)
from listener.domain.pacing import Backoff
from listener.engine.supervisor import until
from listener.settings import Settings

_log = structlog.stdlib.get_logger()

_CONNECT = Backoff(first=timedelta(seconds=0.5), most=timedelta(seconds=15))


async def require_installation(settings: Settings, stop: asyncio.Event) -> None:
    """Return once the database is there and ready, or `stop` is set.

    Raises `InstallationError` if it is there and not ready.
    """
    failures = 0
    while not stop.is_set():
        try:
            await asyncio.to_thread(check_installation, settings)
        except UnreachableError as error:
            failures += 1
            _log.warning("database unavailable", reason=str(error), failures=failures)
            await until(stop, asyncio.sleep(_CONNECT.delay(failures).total_seconds()))
            continue
        return


def check_installation(settings: Settings) -> None:
    """Raise `InstallationError` if the database is not ready, `UnreachableError` if not there.

    Without working triggers there is less to follow, but everything can still be asked about;
    without a history verdicts are still written.
    """
    with installing(settings.database_url.get_secret_value()) as connection:
        missing = missing_parts(connection, settings.wxyc_schema_name)
        history = look_at_history(connection, settings.wxyc_schema_name)
    labels = ", ".join(part.label for part in missing)
    if any(part.folder == "schema" for part in missing):
        message = f"not installed: {labels}; run `listener migrate`"
        raise InstallationError(message)
    if missing:
        # What they miss the audits find.
        _log.error(
            "changes are not captured as they should be, run `listener migrate`", parts=labels
        )
    tell(history)
