"""Oddities of a verdict are reported, and the verdict is still used."""

from __future__ import annotations

from listener.domain.judging import oddities
from listener.domain.verdict import Identity, Provenance


def identity(method: str = "exact_match", *evidence: Provenance) -> Identity:
    return Identity(method, 0.9, "Q1", "sp1", None, evidence)


def test_usual_verdict_is_not_odd() -> None:
    evidence = [
        Provenance("wikidata", "llm", 0.5, "Q1"),
        Provenance("spotify", "trigram", 0.5, "sp1"),
        Provenance("apple_music", "manual", 0.5, "not in main"),
        Provenance("discogs", "exact_match", 0.5, "12"),
    ]
    assert not list(oddities(identity("cross_source_agreement", *evidence)))


def test_unknown_words_are_reported_and_cut() -> None:
    evidence = [Provenance("qobuz", "guess", 0.5, "1"), Provenance("discogs", "x" * 99, 0.5, "1")]
    assert list(oddities(identity("oracle", *evidence))) == [
        "method 'oracle'",
        "source 'qobuz'",
        "method 'guess'",
        f"method '{'x' * 40}'",
    ]


def test_disagreement_of_main_and_provenance_is_reported_without_ids() -> None:
    evidence = [
        Provenance("wikidata", "llm", 0.5, "Q2"),
        Provenance("spotify", "llm", 0.5, "sp1"),
    ]
    assert list(oddities(identity("llm", *evidence))) == [
        "wikidata differs between main and provenance"
    ]
