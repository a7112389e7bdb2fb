"""What all commands have in common: errors in words, exit codes, output."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import click

from listener.adapters.http.sockets import BindError
from listener.adapters.postgres.installation import InstallationError
from listener.domain.faults import StoreUnavailableError
from listener.domain.gate import GateError
from listener.engine.reconciler import RunHaltedError
from listener.settings import SettingsError

SOME_FAILED = 1
COULD_NOT_RUN = 2


def told(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors that a person can do something about into a message and an exit code."""

    @wraps(command)
    def telling(*arguments: object, **options: object) -> None:
        try:
            command(*arguments, **options)
        except (
            SettingsError,
            BindError,
            InstallationError,
            GateError,
            RunHaltedError,
            StoreUnavailableError,
        ) as error:
            for line in str(error).splitlines():
                click.echo(f"listener: {line}", err=True)
            raise SystemExit(COULD_NOT_RUN) from None

    return telling
