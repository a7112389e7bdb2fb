"""Serves health, metrics and the page; imports none of that if HTTP_BIND is empty."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from listener.adapters.log import dropped_lines
from listener.app.parts import refresh_limits
from listener.app.start import session_name
from listener.app.state import DaemonState
from listener.domain.budget import RefreshLimits
from listener.domain.pulse import COVERAGE
from listener.engine.supervisor import in_background, keep_doing
from listener.engine.telemetry import Telemetry, TelemetryFanOut
from listener.settings import Settings, is_loopback, split_address

if TYPE_CHECKING:
    from listener.adapters.http.numbers import Numbers
    from listener.app.page import Page

_log = structlog.stdlib.get_logger()

_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))


def open_socket(settings: Settings) -> socket.socket | None:
    """Listen at HTTP_BIND; return None if it is empty. Raises `FixableError`."""
    if not settings.http_bind:
        return None
    from listener.adapters.http.server import bound_socket  # noqa: PLC0415

    return bound_socket(*split_address(settings.http_bind))


@asynccontextmanager
async def open_site(
    settings: Settings, bound: socket.socket | None, state: DaemonState
) -> AsyncIterator[Telemetry]:
    """Serve on the socket, if any, while the block lasts; yields the counters for /metrics."""
    if bound is None:
        yield TelemetryFanOut()
        return
    # Imported only if something is served.
    from listener.adapters.http.metrics import Metrics  # noqa: PLC0415
    from listener.adapters.http.server import SiteServer, url_of  # noqa: PLC0415
    from listener.adapters.http.site import Sources, make_site  # noqa: PLC0415
    from listener.adapters.postgres.viewer import PAGE, open_viewer  # noqa: PLC0415
    from listener.app.catalogue import Catalogue  # noqa: PLC0415
    from listener.app.page import Page  # noqa: PLC0415
    from listener.app.state import latest_json  # noqa: PLC0415

    dsn = settings.database_url.get_secret_value()
    async with open_viewer(dsn, settings.wxyc_schema_name, session_name(PAGE)) as viewer:
        page, limits = Page(viewer, settings), refresh_limits(settings)
        metrics = Metrics(lambda: _numbers(state, page, limits))
        sources = Sources(
            unready=state.unready,
            metrics=metrics.text,
            latest=lambda: latest_json(state),
            status=page.status,
            page=page.state,
            history=page.history,
            catalogue=Catalogue(settings),
        )
        host, token, names = _access(settings)
        server = SiteServer(make_site(sources, token, names), bound)
        async with in_background(server.answer(), keep_doing("verdict", page.judge)):
            _log.info("page served", url=url_of(bound, host), token_needed=token is not None)
            yield metrics


def _access(settings: Settings) -> tuple[str, str | None, frozenset[str] | None]:
    """Return host and token, and the names that requests may use for us, None for any."""
    host, _ = split_address(settings.http_bind)
    token = settings.http_token.get_secret_value() if settings.http_token else None
    # Without a token, accept only requests to this machine under its own names.
    closed = token is None and is_loopback(host)
    return host, token, _LOCAL_NAMES | {host} if closed else None


def _numbers(state: DaemonState, page: Page, limits: RefreshLimits) -> Numbers:
    from listener.adapters.http.numbers import Numbers  # noqa: PLC0415

    workers, reading, seen = state.workers, state.reading, page.seen
    return Numbers(
        ready=not state.unready(),
        pulses=state.pulses(),
        claimed=state.claimed(),
        captured=state.captured(),
        reading=reading,
        tallies=() if workers is None else (workers.resolver.tally,),
        refreshed={} if workers is None else workers.parts.refreshed,
        neglected={} if workers is None else workers.parts.store.neglected,
        tokens=None if reading is None else limits.discogs_calls - reading.discogs_calls,
        calls_in_flight=0 if workers is None else workers.parts.permits.in_flight,
        uncaptured=None if workers is None else workers.capture.uncaptured,
        log_lines_dropped=dropped_lines(),
        wellness=page.wellness(),
        successes=page.successes,
        library={} if seen is None else {name: getattr(seen.coverage, name) for name in COVERAGE},
        due={} if seen is None else seen.due,
        rotation=None if seen is None else seen.rotation,
    )
