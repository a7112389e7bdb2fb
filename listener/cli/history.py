"""The command `history`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import NoReturn

import click

from listener.adapters.postgres.former import (
    HISTORY,
    FormerIdentity,
    Restored,
    read_former,
    require_history,
    restore,
)
from listener.adapters.postgres.status import looking
from listener.adapters.postgres.story import StandingIdentity, read_standing
from listener.app.report import utc
from listener.cli.errors import examples
from listener.cli.look import moment, printable
from listener.settings import DatabaseSettings, load_settings

_REFUSED = 1
_LABEL = 10

_REASONS = {
    "verdict_changed": "LML's verdict changed",
    "question_changed": "the row changed, and so did LML's verdict",
    "withdrawn": "the row changed, and LML knew no single artist for it",
    "restored": "a person put a former one back",
}
_IDS = {
    "wikidata": "wikidata_qid",
    "spotify": "spotify_id",
    "apple music": "apple_music_id",
    "discogs master": "discogs_master_id",
    "discogs release": "discogs_release_id",
    "musicbrainz release group": "musicbrainz_release_group_mbid",
    "musicbrainz release": "musicbrainz_release_mbid",
    "musicbrainz recording": "musicbrainz_recording_mbid",
}
_row_id = click.IntRange(1, 2**31 - 1)


@click.command(
    name="history",
    epilog=examples(
        ("listener history 4711", "what stood there before"),
        ("listener history 4711 --restore 17", "put that one back, after a question"),
    ),
)
@click.argument("library_id", type=_row_id)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array of former identities.")
@click.option(
    "--restore", "history_id", type=_row_id, help="Put this former identity back, for good."
)
@click.option("--yes", is_flag=True, help="Do not ask before putting one back.")
def history_command(*, library_id: int, as_json: bool, history_id: int | None, yes: bool) -> None:
    """List the former identities of a row; put one back.

    The latest stands first. What is put back counts as a person's work: verdicts leave it as it
    is from then on. What stands there now goes to the history.

    Needs DATABASE_URL only. Exits 0, or 1 if there is no such row and no former identity of one;
    with --restore also if the row has no such former identity, is no more, or changed meanwhile.
    """
    if as_json and history_id is not None:
        raise click.UsageError("--json lists, --restore puts back: say one of the two")
    settings = load_settings(DatabaseSettings)
    dsn, backend = settings.database_url.get_secret_value(), settings.wxyc_schema_name
    # Closed before a person is asked: nothing waits for an answer.
    with looking(dsn, backend, HISTORY) as connection:
        require_history(connection, backend)
        former = read_former(connection, backend, library_id) or ()
        at, there, standing = read_standing(connection, backend, library_id)
    if as_json:
        click.echo(json.dumps([asdict(state) for state in former], default=utc))
    if not there and not former:
        _refuse(f"there is no row {library_id} in the library, nor a former identity of one")
    if as_json:
        return
    if history_id is None:
        for label, line in _tell_all(former, standing, at):
            click.echo(f"{label:<{_LABEL}}{line}")
        return
    state = _chosen(library_id, former, history_id, there=there)
    for label, line in _tell_all([state], standing, at):
        click.echo(f"{label:<{_LABEL}}{line}")
    if not yes:
        click.confirm("Put it back? Verdicts will leave it as it is.", abort=True)
    with looking(dsn, backend, HISTORY) as connection:
        _tell(restore(connection, backend, library_id, history_id), library_id)


def former_line(state: FormerIdentity, now: datetime) -> str:
    """Tell a former identity, without its number, in one line."""
    until = moment(state.superseded_at, now)
    return f"{_ids_and_method(state)}; stood until {until}: {_reason_of(state)}"


def ids_of(identity: FormerIdentity | StandingIdentity) -> str:
    """Tell all ids of an identity with their catalogues."""
    values = {name: getattr(identity, column, None) for name, column in _IDS.items()}
    shown = [f"{name} {printable(str(value))}" for name, value in values.items() if value]
    return ", ".join(shown) or "no id of an artist"


def _reason_of(state: FormerIdentity) -> str:
    return _REASONS.get(state.superseded_reason, printable(state.superseded_reason))


def _ids_and_method(identity: FormerIdentity | StandingIdentity) -> str:
    method = f"method {printable(identity.method)}, confidence {identity.confidence:.2f}"
    return f"{ids_of(identity)}; {method}"


def _chosen(
    library_id: int, former: Sequence[FormerIdentity], history_id: int, *, there: bool
) -> FormerIdentity:
    state = next((state for state in former if state.history_id == history_id), None)
    if state is None:
        known = ", ".join(str(state.history_id) for state in former) or "none"
        _refuse(f"{history_id} is no former identity of row {library_id}; it has: {known}")
    if not there:
        _refuse(f"row {library_id} of the library is no more; nothing can be put back")
    return state


def _refuse(message: str) -> NoReturn:
    click.echo(f"listener: {message}", err=True)
    raise SystemExit(_REFUSED)


def _tell(restored: Restored, library_id: int) -> None:
    match restored:
        case Restored.DONE:
            click.echo("put back; verdicts leave it as it is from now on")
        case Restored.STOOD_ALREADY:
            click.echo("it stands there already; nothing was changed")
        case Restored.MEANWHILE:
            _refuse(f"row {library_id} changed meanwhile; nothing was put back, try again")


def _tell_all(
    former: Sequence[FormerIdentity], standing: StandingIdentity | None, now: datetime
) -> Iterator[tuple[str, str]]:
    yield "now", _ids_and_method(standing) if standing else "none"
    for state in former:
        yield str(state.history_id), former_line(state, now)
    if not former:
        yield "", "nothing else stood there before"
