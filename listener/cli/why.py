"""The command `why`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import timedelta

import click

from listener.adapters.postgres.library import AskAgain
from listener.adapters.postgres.status import STORY, looking
from listener.adapters.postgres.story import (
    Answer,
    NextAsking,
    StandingIdentity,
    StandingSource,
    Story,
    read_story,
)
from listener.app.report import dumped
from listener.app.verdict import lml_trouble_of
from listener.cli.errors import RowId, examples
from listener.cli.find import search, show
from listener.cli.history import former_line, ids_of
from listener.cli.look import json_option, moment, printable
from listener.domain.due import Reason
from listener.domain.verdict import VISITED_COMPILATION, Kind
from listener.settings import StatusSettings, load_settings

_NO_SUCH_ROW = 1
_LABEL = 10

_REASONS = {
    Reason.NEVER: "LML was never asked about it",
    Reason.CHANGED: "the row changed since LML was asked",
    Reason.RESOLVED: "its identity needs to be verified again",
    Reason.UNRESOLVED: "LML found no single artist, and may find one now",
    Reason.FAILED: "the last attempt failed",
}

# Ordered by what a person can do about it.
_UNLINKED = {
    "no_cta_match": "match no row of the backend",
    "no_catalog_artist": "name an artist that the backend lacks, or has twice",
    "no_resolved_artist": "name an artist that LML does not know",
    "librarian": "left to a librarian",
}


@click.command(
    name="why",
    epilog=examples(
        ("listener why 4711", "explain the row with this id"),
        ("listener why broadcast tender", "explain the release with these words"),
        ("listener why 4711 --json", "machine-readable"),
    ),
)
@click.argument("row", metavar="ID|WORDS...", nargs=-1, required=True)
@json_option
def why_command(*, row: tuple[str, ...], as_json: bool) -> None:
    """Explain the state of one library row.

    Shows what LML was asked and answered, the identity, and what happens next. WORDS are looked up
    in artists and titles; if several releases match, they are listed instead. Needs only
    DATABASE_URL and changes nothing. Exits 0, or 1 unless exactly one row matches.
    """
    settings = load_settings(StatusSettings)
    dsn, backend = settings.database_url.get_secret_value(), settings.wxyc_schema_name
    library_id = _id_of(row, dsn, backend)
    ask_again = AskAgain(
        resolved=timedelta(days=settings.stale_threshold_days),
        unresolved=timedelta(days=settings.unresolved_retry_days),
    )
    with looking(dsn, backend, STORY) as connection:
        story = read_story(
            connection,
            backend,
            library_id,
            ask_again,
            include_null_canonical=settings.include_null_canonical,
        )
    if as_json:
        click.echo(dumped(asdict(story)))
    else:
        for label, line in lines_of(story):
            click.echo(f"{label:<{_LABEL}}{line}")
    if story.release is None:
        raise SystemExit(_NO_SUCH_ROW)


def _id_of(row: tuple[str, ...], dsn: str, backend: str) -> int:
    """Return the given id, or that of the only release that matches the words."""
    if len(row) == 1 and row[0].isdecimal():
        return RowId().convert(row[0], None, None)
    found = search(dsn, backend, " ".join(row))
    if len(found) == 1:
        return found[0].library_id
    if found:
        show(found)
        click.echo("several releases match; give more words, or an id", err=True)
    else:
        click.echo("no release contains all of these words", err=True)
    raise SystemExit(_NO_SUCH_ROW)


def lines_of(story: Story) -> Iterator[tuple[str, str]]:
    """Yield the story as lines, each with its label, which may be empty."""
    yield from _release(story)
    yield "changes", _changes(story)
    if (trouble := lml_trouble_of(story.changes)) is not None:
        yield "LML", printable(trouble.sentence(story.at))
    yield from _answer(story)
    yield from _identity(story)
    for number, source in enumerate(story.sources):
        yield "" if number else "sources", _source(source, story)
    yield from _history(story)
    yield "next", _next(story)


def _release(story: Story) -> Iterator[tuple[str, str]]:
    yield "row", f"{story.library_id} of the library"
    if story.release is None:
        yield "", "no such row"
        return
    artist, letters = story.release.artist_name, story.release.code_volume_letters
    yield "artist", printable(artist) if artist is not None else "none, so LML is not asked"
    yield "title", printable(story.release.album_title)
    yield "letters", printable(letters) if letters is not None else "none"


def _changes(story: Story) -> str:
    changes = story.changes
    if not changes.waiting or changes.first_at is None or changes.last_at is None:
        return f"none in the outbox; {_follower(story)}"
    recorded = f"recorded {moment(changes.first_at, story.at)}"
    if changes.waiting > 1:
        recorded = f"the first {recorded}, the last {moment(changes.last_at, story.at)}"
    return f"{changes.waiting:,} in the outbox, {recorded}; {_follower(story)}"


def _follower(story: Story) -> str:
    if story.changes.holder is None:
        return "no daemon follows the library"
    holder = printable(story.changes.holder)
    if not story.changes.holder_alive:
        return f"{holder} followed the library, but is disconnected"
    return f"{holder} follows the library"


def _answer(story: Story) -> Iterator[tuple[str, str]]:
    answer = story.answer
    if answer is None:
        yield "asked", "never"
        return
    yield from _answered(answer, story)
    if answer.outcome == VISITED_COMPILATION:
        yield "tracks", _tracks(answer.tracks)
    elif answer.outcome == Kind.COMPILATION:
        yield "tracks", "LML has not visited them yet, or was not asked for them"
    if answer.failed_at is not None:
        failed = f"{answer.failures:,} in a row, the last {moment(answer.failed_at, story.at)}"
        yield "failures", f"{failed}: {printable(answer.failure or 'no reason recorded')}"
        if answer.failure_detail:
            yield "", printable(answer.failure_detail)
        if answer.parked:
            yield "", f"parked until the row or LML changes, or until {_requeue(story)}"
        if answer.next_ask_at is not None:
            yield "", f"next attempt {moment(answer.next_ask_at, story.at)}"


def _answered(answer: Answer, story: Story) -> Iterator[tuple[str, str]]:
    if answer.outcome is None or answer.answered_at is None:
        yield "asked", "never answered"
    else:
        yield "asked", f"last answered {moment(answer.answered_at, story.at)}: {answer.outcome}"
        if answer.failures:
            yield "", "later attempts failed, so this answer may be to an older question"
    if story.release is not None:
        changed = "has not changed" if answer.same_question else "changed"
        yield "", f"the row {changed} since it was last asked about"


def _tracks(tracks: Mapping[str, int] | None) -> str:
    if not tracks:
        return "LML visited them and found no credits"
    linked = f"{tracks['linked']:,} of {tracks['credits']:,} credits linked to an artist"
    others = [f"{tracks[name]:,} {what}" for name, what in _UNLINKED.items() if tracks[name]]
    return "; ".join([linked, *others])


def _identity(story: Story) -> Iterator[tuple[str, str]]:
    identity = story.identity
    found = story.answer is not None and story.answer.outcome == Kind.SINGLE_ARTIST
    if identity is None:
        yield "identity", "none, although LML found one: it was removed" if found else "none"
        return
    yield "identity", f"{_standing(identity, story)}; {ids_of(identity)}"
    if identity.kept:
        kept = "the verdict single_artist did" if found else "verdicts do"
        yield "", f"a person's work: {kept} not replace it"


def _source(source: StandingSource, story: Story) -> str:
    kept = "; a person's work, verdicts do not replace it" if source.kept else ""
    name = f"{printable(source.source)} {printable(source.external_id)}"
    return f"{name}: {_standing(source, story)}{kept}"


def _history(story: Story) -> Iterator[tuple[str, str]]:
    if story.history is None:
        yield "history", "cannot be read; run `listener doctor`"
    for number, state in enumerate(story.history or ()):
        yield "" if number else "history", f"{state.history_id}: {former_line(state, story.at)}"


def _standing(standing: StandingIdentity | StandingSource, story: Story) -> str:
    return (
        f"method {printable(standing.method)}, confidence {standing.confidence:.2f}, "
        f"verified {moment(standing.last_verified_at, story.at)}, "
        f"{'' if standing.ours else 'not '}written by us"
    )


def _next(story: Story) -> str:
    if story.release is None:
        return "nothing: no such row"
    if story.release.artist_name is None:
        return "nothing, until it has an artist name"
    if story.changes.waiting:
        return "asked when its change is read, unless its question has a fresh answer"
    if story.next_asking is not None:
        return _search(story.next_asking, story)
    return (
        "no search: out of scope without a canonical_entity_id, because "
        "INCLUDE_NULL_CANONICAL is false; a change of the row is still handled"
    )


def _requeue(story: Story) -> str:
    return f"`listener requeue {story.library_id}`"


def _search(asking: NextAsking, story: Story) -> str:
    why = _REASONS[Reason(asking.reason)]
    if asking.reason == Reason.NEVER and not asking.due:
        why = "never asked about, but another program verified its identity"
    if asking.job == "audit" and asking.due and asking.reason == Reason.RESOLVED:
        why = "its identity is missing or too old"
    if asking.job == "retry":
        due = "now" if asking.due else moment(asking.due_at, story.at)
        return f"due {due}: {why}; the daemon that follows the library will ask, or a sweep"
    scheduled = moment(asking.next_at, story.at) if asking.next_at else "once a daemon runs"
    if asking.due:
        return f"due now: {why}; the next {asking.job} will ask, {scheduled}"
    due = moment(asking.due_at, story.at)
    return f"due {due}: {why}; the first {asking.job} after that will ask"
