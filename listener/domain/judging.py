"""Matches the results of a reply with the questions it answers, and finds what is odd in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from listener.domain.question import Question
from listener.domain.tally import Skip
from listener.domain.verdict import Identity, Verdict

# Both vocabularies may grow; unknown words are stored as text.
SOURCES = frozenset(("discogs", "musicbrainz", "wikidata", "spotify", "apple_music", "bandcamp"))
METHODS = frozenset(
    (
        "manual",
        "cross_source_agreement",
        "exact_match",
        "name_variation",
        "member_group",
        "alias_match",
        "trigram",
        "llm",
    )
)
_LONGEST_WORD = 40
_MOST_SEEN = 100
_FOREIGN = (Skip.UNTRUSTED, "LML answered about another row")
_MISSING = (Skip.MISMATCH, "the reply has no answer")


@dataclass(frozen=True, slots=True)
class Invalid:
    """A result that cannot be understood; `library_id` is set if at least that was readable."""

    library_id: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A reply matched with its questions.

    Every question is either in `accepted`, by its verdict, or in `unanswered`, with the reason.
    `foreign` ids were not asked for; `nameless_invalid` counts unreadable results without an id.
    """

    accepted: tuple[Verdict, ...]
    unanswered: Mapping[int, tuple[Skip, str]]
    foreign: frozenset[int]
    nameless_invalid: int


def judge(asked: Sequence[Question], results: Iterable[Verdict | Invalid]) -> Judgement:
    """Sort the results of a reply by row id; their number and order prove nothing.

    A row with two different answers, or with a valid and an invalid one, counts as unanswered.
    """
    wanted = {question.library_id for question in asked}
    verdicts: dict[int, Verdict] = {}
    unanswered: dict[int, tuple[Skip, str]] = {}
    foreign: set[int] = set()
    nameless = 0
    for result in results:
        row = result.library_id
        if row is None:
            nameless += 1
        elif row not in wanted:
            foreign.add(row)
        elif isinstance(result, Invalid):
            unanswered[row] = (Skip.INVALID, result.reason)
        elif verdicts.setdefault(row, result) != result:
            unanswered.setdefault(row, (Skip.INVALID, "two conflicting answers"))
    for number, row in enumerate(sorted(wanted - verdicts.keys() - unanswered.keys())):
        # A verdict about a row we did not ask about may be meant for one without an answer.
        untrusted = number < len(foreign)
        unanswered[row] = _FOREIGN if untrusted else _MISSING
    return Judgement(
        accepted=tuple(v for row, v in verdicts.items() if row not in unanswered),
        unanswered=unanswered,
        foreign=frozenset(foreign),
        nameless_invalid=nameless,
    )


@dataclass(slots=True)
class LoggedOnce:
    """Remembers what was logged already; bounded, because LML may send anything."""

    things: set[str] = field(default_factory=set)

    def first(self, thing: str) -> bool:
        """Return whether to log this: it is new, and not too many others were logged."""
        if thing in self.things or len(self.things) >= _MOST_SEEN:
            return False
        self.things.add(thing)
        return True


def oddities(identity: Identity) -> Iterator[str]:
    """Yield a word or two for each oddity, never row contents."""
    named = {
        "wikidata": identity.wikidata_qid,
        "spotify": identity.spotify_id,
        "apple_music": identity.apple_music_id,
    }
    if identity.method not in METHODS:
        yield f"method {identity.method[:_LONGEST_WORD]!r}"
    for entry in identity.provenance:
        if entry.source not in SOURCES:
            yield f"source {entry.source[:_LONGEST_WORD]!r}"
        if entry.method not in METHODS:
            yield f"method {entry.method[:_LONGEST_WORD]!r}"
        main = named.get(entry.source)
        if main is not None and main != entry.external_id:
            yield f"{entry.source} differs between main and provenance"
