"""A row's story in words, the same for `listener why` and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from listener.adapters.postgres.history import FormerIdentity
from listener.adapters.postgres.story import (
    Answer,
    NextAsking,
    StandingIdentity,
    StandingSource,
    Story,
)
from listener.app.verdict import lml_trouble_of
from listener.app.wording import moment, outcome_word, printable
from listener.domain.due import Reason
from listener.domain.verdict import VISITED_COMPILATION, Kind

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

_SUPERSEDED = {
    "verdict_changed": "LML's verdict changed",
    "question_changed": "the row changed, and so did LML's verdict",
    "withdrawn": "the row changed, and LML found no single artist",
    "restored": "a person restored an earlier one",
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
        yield (
            "asked",
            f"last answered {moment(answer.answered_at, story.at)}: {outcome_word(answer.outcome)}",
        )
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
    yield "identity", f"{_standing(identity, story)}; {_ids_of(identity)}"
    if identity.kept:
        kept = "LML's verdict did" if found else "verdicts do"
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


def former_line(state: FormerIdentity, now: datetime) -> str:
    """Describe a former identity in one line, without its number."""
    until = moment(state.superseded_at, now)
    return f"{identity_line(state)}; until {until}: {_reason_of(state)}"


def identity_line(identity: FormerIdentity | StandingIdentity) -> str:
    """Describe an identity in one line."""
    method = f"method {printable(identity.method)}, confidence {identity.confidence:.2f}"
    return f"{_ids_of(identity)}; {method}"


def _ids_of(identity: FormerIdentity | StandingIdentity) -> str:
    """List the ids of an identity, each with its catalogue."""
    values = {name: getattr(identity, column, None) for name, column in _IDS.items()}
    shown = [f"{name} {printable(str(value))}" for name, value in values.items() if value]
    return ", ".join(shown) or "no artist id"


def _reason_of(state: FormerIdentity) -> str:
    return _SUPERSEDED.get(state.superseded_reason, printable(state.superseded_reason))
