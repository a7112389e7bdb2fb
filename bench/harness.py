"""What all benches share: a fresh server, a catalogue to work on, figures and their table."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from listener.adapters.postgres.installation import install, installing
from listener.demo.postgres import embedded_postgres

ROWS = 64_676


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: what was measured and whether it reaches its target.

    `readings` are those that `measured` is the median of, or the worst, in its unit.
    """

    name: str
    target: str
    measured: str
    met: bool
    detail: str = ""
    readings: Sequence[float] = ()


def show(figures: Sequence[Figure], title: str) -> None:
    """Print the figures as a table."""
    table = Table(title=title, title_justify="left")
    for heading in ("what", "target", "measured", "spread", "met", "detail"):
        table.add_column(heading, overflow="fold")
    for figure in figures:
        met = "[green]yes[/]" if figure.met else "[red]no[/]"
        between = spread(figure.readings, "{:.4g}") if len(figure.readings) > 1 else ""
        table.add_row(figure.name, figure.target, figure.measured, between, met, figure.detail)
    Console().print(table)


def machine() -> str:
    """Name the machine, and how busy it was before we came."""
    info = Path("/proc/cpuinfo")
    processors = re.findall(r"model name\s*: (.+)", info.read_text() if info.exists() else "")
    memory = psutil.virtual_memory().total / 2**30
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{psutil.cpu_count()} cores ({processors[0] if processors else platform.machine()}), "
        f"{memory:.0f} GB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; load {load}"
    )


def in_turn(part: str, rounds: int) -> Iterator[int]:
    """Yield the number of each round, from 0, and report its begin on standard error."""
    for number in range(rounds):
        sys.stderr.write(f"{part}: round {number + 1} of {rounds}\n")
        yield number


def median(values: Sequence[float]) -> float:
    """Return the middle value."""
    return statistics.median(values)


def p99(values: Sequence[float]) -> float:
    """Return the value that 99 of 100 are below."""
    return sorted(values)[int(len(values) * 0.99)]


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Return the lowest and the highest reading as text."""
    return f"{form.format(min(values))} to {form.format(max(values))}"


@contextmanager
def fresh_server(*, version: int = 18) -> Iterator[str]:
    """Run an empty embedded server for the length of the block; its folder is removed afterwards.

    It keeps the time of every commit, so that what lies between two need not be watched for.
    """
    with TemporaryDirectory(prefix="listener-bench-") as name:
        folder = Path(name)
        with (
            embedded_postgres(folder, version=version) as dsn,
            psycopg.connect(dsn, autocommit=True) as connection,
        ):
            connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
        with embedded_postgres(folder, version=version) as dsn:
            yield dsn


_ARTISTS = sql.SQL("""
WITH words AS (
    SELECT
        ARRAY['Velvet', 'Björk', 'Saint', 'Sun', 'Mótorhead', 'Niño', 'D''Angelo', 'Electric',
            'Broken', 'Mary', 'Yo La', 'Sigur', 'Black', 'Silver', 'Cocteau', 'José', 'Fela']
            AS first,
        ARRAY['Underground', 'Rós', 'Etienne', 'Ra', 'Orchestra', 'de Luna', '& the Gang', 'Twins',
            'Social Scene', 'Timony', 'Tengo', 'Fire', 'Jews', 'Kuti', 'Ensemble']
            AS last
)
INSERT INTO {backend}.artists (artist_name)
SELECT concat_ws(' ', first[1 + n %% 17], last[1 + n / 17 %% 15], nullif(n / 255, 0))
FROM words, generate_series(0, greatest(%(rows)s / 3, 1) - 1) AS n
""")

_LIBRARY = sql.SQL("""
WITH words AS (
    SELECT
        ARRAY['Songs', 'Dreams', 'Café', 'Loveless', 'Nights', 'Blue "Live"', 'Hex', 'Ágætis',
            'Low', 'Disco', 'Rum, Sodomy', 'Another', 'Spirit']
            AS first,
        ARRAY['for Airports', 'of Eden', 'and Cigarettes', 'in the Dark', 'Vol. 2', 'Revisited',
            'at the BBC', 'byrjun', 'Sessions', 'EP', 'to the Sun']
            AS last
),
artist AS (
    SELECT id, artist_name, row_number() OVER (ORDER BY id) - 1 AS place
    FROM {backend}.artists
),
release AS (
    SELECT
        n,
        n %% (SELECT count(*) FROM artist) AS place,
        %(compilations)s AND n %% 20 = 0 AS various
    FROM generate_series(0, %(rows)s - 1) AS n
)
INSERT INTO {backend}.library (
    artist_id, artist_name, album_title, label, code_volume_letters, canonical_entity_id, plays
)
SELECT
    artist.id,
    CASE WHEN release.various THEN 'Various Artists' ELSE artist.artist_name END,
    concat_ws(' ', first[1 + n %% 13], last[1 + n / 13 %% 11], nullif(n / 143, 0)),
    'Label ' || n %% 900,
    CASE WHEN release.various THEN 'Z' ELSE chr(65 + n %% 25) END || chr(65 + n %% 7),
    CASE WHEN n %% 13 < 6 THEN 'entity:' || n END,
    n %% 50
FROM words, release
JOIN artist ON artist.place = release.place
""")


def catalogue(dsn: str, schema: str, rows: int = ROWS, *, compilations: bool = True) -> None:
    """Fill artists and library with `rows` invented releases; one in twenty is a compilation."""
    backend = sql.Identifier(schema)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in (_ARTISTS, _LIBRARY):
            parameters = {"rows": rows, "compilations": compilations}
            connection.execute(statement.format(backend=backend), parameters)
        connection.execute("VACUUM ANALYZE")


def migrate(dsn: str, backend: str) -> None:
    """Install the listener."""

    async def migrating() -> None:
        async with installing(dsn) as connection:
            await install(connection, backend)

    asyncio.run(migrating())
