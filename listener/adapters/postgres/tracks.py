"""Writes what LML says about the credits of compilations to the backend's track artists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from listener.adapters.postgres.arrays import Float4s, Int4s, Texts
from listener.adapters.postgres.sessions import Connection, query
from listener.domain.tracks import TrackCount, TrackKey
from listener.domain.verdict import VerdictBatch

_WEIGHED = (
    TrackCount.ROWS_UNCHANGED,
    TrackCount.ROWS_LIBRARIAN,
    TrackCount.ROWS_NO_MATCH,
    TrackCount.ROWS_NO_ARTIST,
    TrackCount.POSITIONS_AMBIGUOUS,
)


class _Offer(NamedTuple):
    """What LML offers for one row of the backend's."""

    library_id: int
    key: TrackKey


class _Change(NamedTuple):
    """A row that is to get another link, if `relinked`, or a position, if `placed`.

    A link without an artist says that LML knows one, and the catalogue none or several.
    """

    row_id: int
    offer: _Offer
    relinked: bool
    artist_id: int | None
    placed: bool


class PostgresTracks:
    """Two statements a batch: what would change, and the change itself if there is any."""

    def __init__(self, backend: str) -> None:
        self._weigh = query("weigh_tracks", backend)
        self._write = query("write_tracks", backend)

    async def write(
        self, connection: Connection, batch: VerdictBatch
    ) -> dict[int, Counter[TrackCount]]:
        """Write the tracks of the verdicts that the ledger accepted in this transaction.

        Returns by release what became of its credits; nothing for those not accepted.
        """
        offers = list(_offers(batch))
        cursor = connection.cursor()
        await cursor.execute(self._weigh, _offer_columns(batch.order, offers), binary=True)
        counts: dict[int, Counter[TrackCount]] = {}
        changes: list[_Change] = []
        for library_id, *found in await cursor.fetchall():
            weighed, columns = found[: len(_WEIGHED)], found[len(_WEIGHED) :]
            counts[library_id] = Counter(dict(zip(_WEIGHED, weighed, strict=True)))
            changes += _changes(offers, *columns)
        if changes:
            for library_id, linked, positioned in await self._change(connection, changes):
                counts[library_id][TrackCount.ROWS_WRITTEN] = linked
                counts[library_id][TrackCount.POSITIONS_WRITTEN] = positioned
        return {library_id: +of_release for library_id, of_release in counts.items()}

    async def _change(self, connection: Connection, changes: Sequence[_Change]) -> list[Any]:
        return await (await connection.execute(self._write, change_columns(changes))).fetchall()


def _offers(batch: VerdictBatch) -> Iterator[_Offer]:
    for verdict in sorted(batch.verdicts, key=lambda verdict: verdict.library_id):
        for key in verdict.tracks.keys if verdict.tracks is not None else ():
            yield _Offer(verdict.library_id, key)


def _changes(offers: Sequence[_Offer], *columns: Sequence[Any] | None) -> Iterator[_Change]:
    """Yield what is to change of a release, by the place of each offer; nothing without columns."""
    for place, row_id, *change in zip(*(column or () for column in columns), strict=True):
        yield _Change(row_id, offers[place - 1], *change)


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


def change_columns(changes: Sequence[_Change]) -> dict[str, Any]:
    """Return the parameters of `write_tracks`."""
    # Ascending ids: other writers of several rows in that order never deadlock with us.
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
