"""Writes LML's findings about the credits of compilations to the backend's track artists."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

from listener.adapters.postgres.arrays import Float4s, Int4s, Texts
from listener.adapters.postgres.sessions import Connection, query
from listener.domain.tracks import TrackCount, TrackKey
from listener.domain.verdict import VerdictBatch

# What becomes of a credit, under its names in the ledger.
_FATES = ("linked", "librarian", "no_resolved_artist", "no_catalog_artist", "no_cta_match")
_SKIPPED = {
    "no_catalog_artist": TrackCount.ROWS_NO_ARTIST,
    "librarian": TrackCount.ROWS_LIBRARIAN,
    "no_cta_match": TrackCount.ROWS_NO_MATCH,
}


class _Offer(NamedTuple):
    """What LML offers for one row of the backend."""

    library_id: int
    key: TrackKey


class _Weighed(NamedTuple):
    """What becomes of an offer: its row gets another link, if `relinked`, or a position.

    A link without an artist means that LML knows one, but the catalogue has none or several.
    `row_id` is None if there is no row, and then there is no change either.
    """

    offer: _Offer
    fate: str
    row_id: int
    relinked: bool
    artist_id: int | None
    placed: bool
    ambiguous: bool


class PostgresTracks:
    """Three statements a batch: what would change, a note of it, and the change if there is any."""

    def __init__(self, backend: str) -> None:
        self._weigh = query("weigh_tracks", backend)
        self._note = query("note_tracks", backend)
        self._write = query("write_tracks", backend)

    async def write(
        self, connection: Connection, batch: VerdictBatch
    ) -> dict[int, Counter[TrackCount]]:
        """Write the tracks of the verdicts that the ledger accepted in this transaction.

        Returns by release what became of its credits; nothing for those not accepted.
        """
        releases = await self._weighed(connection, batch)
        await connection.execute(self._note, _note_columns(releases))
        counts = {library_id: _count(weighed) for library_id, weighed in releases.items()}
        every = chain.from_iterable(releases.values())
        if changes := [each for each in every if each.relinked or each.placed]:
            for library_id, linked, positioned in await self._change(connection, changes):
                counts[library_id][TrackCount.ROWS_WRITTEN] = linked
                counts[library_id][TrackCount.POSITIONS_WRITTEN] = positioned
        return {library_id: +of_release for library_id, of_release in counts.items()}

    async def _weighed(
        self, connection: Connection, batch: VerdictBatch
    ) -> Mapping[int, Sequence[_Weighed]]:
        offers = list(_offers(batch))
        cursor = connection.cursor()
        await cursor.execute(self._weigh, _offer_columns(batch.order, offers), binary=True)
        releases: defaultdict[int, list[_Weighed]] = defaultdict(list)
        for place, *found in await cursor.fetchall():
            offer = offers[place - 1]
            releases[offer.library_id].append(_Weighed(offer, *found))
        return releases

    async def _change(self, connection: Connection, changes: Sequence[_Weighed]) -> list[Any]:
        return await (await connection.execute(self._write, change_columns(changes))).fetchall()


def _offers(batch: VerdictBatch) -> Iterator[_Offer]:
    for verdict in sorted(batch.verdicts, key=lambda verdict: verdict.library_id):
        for key in verdict.tracks.keys if verdict.tracks is not None else ():
            yield _Offer(verdict.library_id, key)


def _count(weighed: Sequence[_Weighed]) -> Counter[TrackCount]:
    counts = Counter(_SKIPPED[each.fate] for each in weighed if each.fate in _SKIPPED)
    counts[TrackCount.ROWS_UNCHANGED] = sum(
        each.fate == "linked" and not each.relinked for each in weighed
    )
    counts[TrackCount.POSITIONS_AMBIGUOUS] = sum(each.ambiguous for each in weighed)
    return counts


def _offer_columns(order: int, offers: Sequence[_Offer]) -> dict[str, Any]:
    keys = [offer.key for offer in offers]
    return {
        "ask_order": order,
        "track_ids": Int4s(sorted({offer.library_id for offer in offers})),
        "key_rows": Int4s([offer.library_id for offer in offers]),
        "key_artists": Texts([key.artist_name for key in keys]),
        "key_titles": Texts([key.track_title for key in keys]),
        "key_resolved": Texts([key.resolved_artist_name for key in keys]),
        "key_confidences": Float4s([key.confidence for key in keys]),
        "key_positions": Texts([key.track_position for key in keys]),
        "key_position_counts": Int4s([key.positions for key in keys]),
    }


def _note_columns(releases: Mapping[int, Sequence[_Weighed]]) -> dict[str, Any]:
    fates = [Counter(each.fate for each in weighed) for weighed in releases.values()]
    return {
        "library_ids": Int4s(list(releases)),
        "tracks": [
            Jsonb({"credits": found.total()} | {fate: found[fate] for fate in _FATES})
            for found in fates
        ],
    }


def change_columns(changes: Sequence[_Weighed]) -> dict[str, Any]:
    """Return the parameters of `write_tracks`."""
    # Ascending ids: writers that lock rows in the same order never deadlock with us.
    ordered = sorted(changes, key=lambda change: change.row_id)
    keys = [change.offer.key for change in ordered]
    return {
        "ids": Int4s([change.row_id for change in ordered]),
        "rows": Int4s([change.offer.library_id for change in ordered]),
        "artist_names": Texts([key.artist_name for key in keys]),
        "titles": Texts([key.track_title for key in keys]),
        "relinked": [change.relinked for change in ordered],
        "artist_ids": Int4s([change.artist_id for change in ordered]),
        "confidences": Float4s([key.confidence for key in keys]),
        "positions": Texts([c.offer.key.track_position if c.placed else None for c in ordered]),
    }
