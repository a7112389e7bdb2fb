"""A station's catalogue: invented releases, or real ones from a file; and filling a backend."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import psycopg

from listener.demo.statements import statement

LONGEST_NAME = 128
PAGE = 10_000
VARIOUS = "Various Artists"


def _words(text: str) -> tuple[str, ...]:
    """Split at blanks; an underscore stands for a blank within a name."""
    return tuple(word.replace("_", " ") for word in text.split())


_ADJECTIVES = _words(
    "Velvet Paper Northern Hollow Électrique Gläserne Salty Quiet Neon Rusted Słoneczny Pequeño"
    " Midnight Plastic Wandering Åland Frozen Second Marble Crooked Süße Lonely Orbital Čierny"
)
_NOUNS = _words(
    "Lanterns Foxes Harbour Antennas Ćmy Motors Orchard Niños Ghosts Weather Tramways Pelicans"
    " Fjord Mirrors Cassettes Umbrellas Moths Engines Gärten Radios Sœurs Kites Comets Dominoes"
)
_FIRST = _words(
    "Ingrid Björn Zoë Chloé Dvořák Nuno Aoife Yıldız Łucja Renée Tomás Siobhán Ádám Malik Kenji"
    " Amara Paavo Eseoghene Thảo Mei Ravi Ọlá Søren Nadia"
)
_LAST = _words(
    "O'Hanlon D’Arcy Müller Østergård Nguyễn Şahin Nováková Ibáñez Okafor Kowalczyk Lindqvist"
    " Papadakis Țepeș Ferreira Virtanen MacLeod Ito Haddad Þórsson van_der_Meer"
)
_CYRILLIC = (
    _words("Тихие Зимний Новые Синий Старая Стеклянный"),
    _words("Трамваи Оркестр Маяк Птицы Комета Гавань"),
)
_CJK = (
    _words("夜の電車 銀色庭園 青い傘 紙飛行機 北極星 雨音 金魚鉢"),
    _words("樂團 計画 四重奏 工房"),
)
_TITLE_WORDS = _words(
    "Salt Letters Glass Rivers Tuesday Machines Lullaby Static Snow Été Überall Canción Paths"
    " Winter Hands Satellite Bones Honey Gravity Cinema Départ Blue Cellar Weightless"
)
_CONNECTIVES = ("of the", "&", "and", "for", "in", "without", "/", "vs.")
_LABELS = ("Paper Moth", "Kiln & Sons", "Discos Ñandú", "Nachtfahrt", "雨 Records", "Tin Roof")


@dataclass(frozen=True, slots=True)
class Release:
    """One library row to be: names of 1 to 128 characters, letters of at most 4."""

    artist_name: str
    album_title: str
    label: str | None = None
    code_volume_letters: str | None = None


def releases(count: int = 3000, seed: int = 1) -> Iterator[Release]:
    """Yield `count` invented releases, always the same for a seed.

    About one in twelve is a various-artists release; an artist has two or three albums.
    """
    choose = Random(seed)
    artists = [_artist(choose) for _ in range(max(1, count * 2 // 5))]
    for _ in range(count):
        label = choose.choice((*_LABELS, None))
        if choose.random() < 1 / 12:
            letters = f"Z-{choose.choice('ABCDEFGHIJKLMNOPQRSTUVW')}"
            yield Release(VARIOUS, _title(choose), label, letters)
        else:
            artist = choose.choice(artists)
            yield Release(artist, _title(choose), label, code_letters(artist))


def albums_tsv(path: Path) -> Iterator[Release]:
    """Yield the releases of a tab-separated file with columns artist_name, album_title, year.

    Names are cut at 128 characters, as the backend's columns are. Raises ValueError when a line
    lacks a name, or the first one does not name the columns.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        for row in lines:
            for name in ("artist_name", "album_title"):
                if row.get(name) is None:
                    raise ValueError(f"line {lines.line_num} has no {name}")
            artist = row["artist_name"][:LONGEST_NAME]
            letters = "Z-A" if artist.casefold().startswith("various") else code_letters(artist)
            yield Release(artist, row["album_title"][:LONGEST_NAME], None, letters)


def code_letters(artist_name: str) -> str | None:
    """Return the shelf letters of an artist who is not various: never starting with Z."""
    letters = "".join(letter for letter in artist_name.upper() if "A" <= letter <= "Y")
    return letters[:2] or None


def fill(dsn: str, schema: str, catalogue: Iterable[Release]) -> int:
    """Add the releases to a backend, artists first, in one transaction; return how many.

    Raises psycopg.Error, and then leaves nothing behind.
    """
    filled, rows = 0, iter(catalogue)
    with psycopg.connect(dsn) as connection:
        while page := list(islice(rows, PAGE)):
            names = {"artist_names": [release.artist_name for release in page]}
            connection.execute(statement("insert_artists", schema), names)
            columns = names | {
                "album_titles": [release.album_title for release in page],
                "labels": [release.label for release in page],
                "letters": [release.code_volume_letters for release in page],
            }
            connection.execute(statement("insert_library", schema), columns)
            filled += len(page)
    return filled


def _artist(choose: Random) -> str:
    draw = choose.random()
    if draw < 0.01:  # noqa: PLR2004 - shares of the kinds of names
        return _longest(choose)
    if draw < 0.06:  # noqa: PLR2004
        return " ".join(map(choose.choice, _CYRILLIC))
    if draw < 0.11:  # noqa: PLR2004
        return "".join(map(choose.choice, _CJK))
    if draw < 0.45:  # noqa: PLR2004
        return f"{choose.choice(_FIRST)} {choose.choice(_LAST)}"
    if draw < 0.55:  # noqa: PLR2004
        return f'{choose.choice(_FIRST)} "{choose.choice(_NOUNS)}" {choose.choice(_LAST)}'
    article = choose.choice(("The ", "", "", "Los ", "Die "))
    return f"{article}{choose.choice(_ADJECTIVES)} {choose.choice(_NOUNS)}"


def _title(choose: Random) -> str:
    words = [choose.choice(_TITLE_WORDS) for _ in range(choose.randint(1, 3))]
    title = f" {choose.choice(_CONNECTIVES)} ".join(words)
    draw = choose.random()
    if draw < 0.005:  # noqa: PLR2004 - shares of the kinds of titles
        return f"{title} 🌊"
    if draw < 0.05:  # noqa: PLR2004
        return f"{title} (Don't Look Back), Vol. {choose.randint(1, 9)}"
    if draw < 0.07:  # noqa: PLR2004
        return f"{choose.choice(_CJK[0])} / {title}"
    if draw < 0.08:  # noqa: PLR2004
        return _longest(choose)
    return title


def _longest(choose: Random) -> str:
    """Return a name of exactly 128 characters, as full as the column gets."""
    words = " ".join(choose.choice(_TITLE_WORDS) for _ in range(40))
    return words[: LONGEST_NAME - 1] + "…"
