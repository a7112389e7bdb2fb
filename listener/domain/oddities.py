"""What is odd about a verdict that can be used all the same."""

from __future__ import annotations

from collections.abc import Iterator

from listener.domain.verdict import Identity

# Both vocabularies may grow; what is not in them is kept as text.
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


def oddities(identity: Identity) -> Iterator[str]:
    """Yield a word or two for each thing that is odd: a short list of them, never row contents."""
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
