"""The command `history`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import NoReturn

import click

from listener.adapters.postgres.history import (
    FormerIdentity,
    Restored,
    read_former,
    require_history,
    restore,
)
from listener.adapters.postgres.sessions import Connection
from listener.adapters.postgres.story import StandingIdentity, read_standing
from listener.app.story import former_line, identity_line
from listener.app.wording import dumped
from listener.cli.errors import RowId, complain, examples
from listener.cli.look import print_labelled
from listener.cli.session import look
from listener.settings import DatabaseSettings, load_settings

_REFUSED = 1


@click.command(
    name="history",
    epilog=examples(
        ("listener history 4711", "list the former identities"),
        ("listener history 4711 --restore 17", "restore number 17, after confirmation"),
    ),
)
@click.argument("library_id", type=RowId())
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of former identities.")
@click.option(
    "--restore",
    "history_id",
    type=RowId(),
    help="Restore this former identity. Verdicts will not replace it.",
)
@click.option("--yes", is_flag=True, help="Restore without confirmation.")
def history_command(*, library_id: int, as_json: bool, history_id: int | None, yes: bool) -> None:
    """List the former identities of a row, or restore one.

    The latest comes first. A restored identity counts as a person's work: verdicts never replace
    it. The identity that it replaces goes to the history.

    Needs only DATABASE_URL. Exits 0, or 1 if neither the row nor a former identity exists. With
    --restore also 1 if the row has no such former identity, was deleted, or changed meanwhile.
    """
    if as_json and history_id is not None:
        raise click.UsageError("give --json or --restore, not both")
    settings = load_settings(DatabaseSettings)
    # Disconnect before asking, so that no session stays open for an answer.
    former, at, there, standing = look(settings, partial(_read, library_id=library_id))
    if as_json:
        click.echo(dumped([asdict(state) for state in former]))
    if not there and not former:
        _refuse(f"the library has no row {library_id}, and the history no identities of it")
    if as_json:
        return
    if history_id is None:
        print_labelled(_lines(former, standing, at))
        return
    state = _chosen(library_id, former, history_id, there=there)
    print_labelled(_lines([state], standing, at))
    if not yes:
        click.confirm("Restore it? Verdicts will not replace it.", abort=True)
    restored = look(settings, partial(restore, library_id=library_id, history_id=history_id))
    _report(restored, library_id)


async def _read(
    connection: Connection, backend: str, library_id: int
) -> tuple[Sequence[FormerIdentity], datetime, bool, StandingIdentity | None]:
    await require_history(connection, backend)
    former = await read_former(connection, backend, library_id) or ()
    return former, *await read_standing(connection, backend, library_id)


def _chosen(
    library_id: int, former: Sequence[FormerIdentity], history_id: int, *, there: bool
) -> FormerIdentity:
    state = next((state for state in former if state.history_id == history_id), None)
    if state is None:
        if not former:
            _refuse(f"row {library_id} has no former identities")
        known = ", ".join(str(state.history_id) for state in former)
        _refuse(f"row {library_id} has no former identity {history_id}; choose from: {known}")
    if not there:
        _refuse(f"row {library_id} was deleted from the library; nothing can be restored")
    return state


def _refuse(message: str) -> NoReturn:
    complain(message)
    raise SystemExit(_REFUSED)


def _report(restored: Restored, library_id: int) -> None:
    match restored:
        case Restored.DONE:
            click.echo("restored; verdicts will not replace it")
        case Restored.STOOD_ALREADY:
            click.echo("this is already the current identity; nothing changed")
        case Restored.MEANWHILE:
            _refuse(f"row {library_id} changed meanwhile; nothing was restored, try again")


def _lines(
    former: Sequence[FormerIdentity], standing: StandingIdentity | None, now: datetime
) -> Iterator[tuple[str, str]]:
    yield "now", identity_line(standing) if standing else "none"
    for state in former:
        yield str(state.history_id), former_line(state, now)
    if not former:
        yield "", "no former identities"
