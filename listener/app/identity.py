"""Who a process is: its name among sessions, and what it says of itself when it starts."""

from __future__ import annotations

import os
import re
import secrets
import socket
from importlib.metadata import version

import structlog
from psycopg import conninfo

from listener import DISTRIBUTION
from listener.settings import Settings
from listener.settings.bounds import masked

_log = structlog.stdlib.get_logger()

# PostgreSQL cuts application_name, and replaces what is not ASCII: other daemons look us up by it.
_LONGEST = 63
_ODD = re.compile(r"[^A-Za-z0-9._-]")


def session_name(name: str) -> str:
    """Return `name`, version, host and process id, with a token: a container's ids come again.

    A long host name loses its start: its end distinguishes the pods of a deployment.
    """
    head = f"{name} {version(DISTRIBUTION)} "
    tail = f"[{os.getpid()}] {secrets.token_hex(4)}"
    return f"{head}{_host()[-max(1, _LONGEST - len(head + tail)) :]}{tail}"[-_LONGEST:]


def announce(settings: Settings) -> None:
    """Log what runs, where, against what, and which settings differ from their defaults."""
    database = conninfo.conninfo_to_dict(settings.database_url.get_secret_value())
    _log.info(
        "starting",
        version=version(DISTRIBUTION),
        host=_host(),
        pid=os.getpid(),
        database_host=database.get("host"),
        database=database.get("dbname"),
        schema=settings.wxyc_schema_name,
        lml=str(settings.library_metadata_url),
        settings={
            # What a query holds may be a token.
            name.upper(): (masked(name, getattr(settings, name)) or "").partition("?")[0]
            for name, field in Settings.model_fields.items()
            if name not in _ANNOUNCED and getattr(settings, name) != field.default
        },
    )


_ANNOUNCED = frozenset(("database_url", "wxyc_schema_name", "library_metadata_url"))


def _host() -> str:
    return _ODD.sub("-", socket.gethostname().split(".")[0])
