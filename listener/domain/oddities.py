"""Oddities of an answer that is usable all the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from listener.domain.verdict import Identity

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
