"""Opens Sentry for runs and errors, if it is configured."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

from listener.engine.telemetry import Telemetry, TelemetryFanOut
from listener.settings import Settings


@asynccontextmanager
async def open_telemetry(settings: Settings) -> AsyncIterator[Telemetry]:
    """Report to Sentry for the length of the block; without a DSN it is not even imported."""
    if settings.sentry_dsn is None:
        yield TelemetryFanOut()
        return
    # The SDK alone takes 70 ms to import.
    from listener.adapters.telemetry.sentry import (  # noqa: PLC0415
        SentryOptions,
        open_sentry,
    )

    options = SentryOptions(
        dsn=settings.sentry_dsn.get_secret_value(),
        environment=settings.sentry_environment,
        traces_sample_rate=settings.sentry_traces_sample_rate,
        secrets=tuple(_secrets(settings)),
    )
    async with open_sentry(options) as telemetry:
        yield telemetry


def _secrets(settings: Settings) -> Iterator[str]:
    values = [getattr(settings, name) for name in Settings.model_fields]
    addresses = [str(settings.library_metadata_url)]
    addresses += [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    yield from addresses[1:]
    for address in addresses:
        # What is no address holds no password.
        with suppress(ValueError):
            parts = urlsplit(address)
            passwords = [parts.password or "", *parse_qs(parts.query).get("password", [])]
            yield from passwords
            yield from map(unquote, passwords)
