"""What a page of verdicts came to: counted, and told where a person should know."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from listener.domain.tally import Skip, Tally
from listener.domain.tracks import TrackCount, drifted
from listener.domain.verdict import Kind, Verdict, Written

_log = structlog.stdlib.get_logger()


def count(tally: Tally, verdicts: Sequence[Verdict], written: Written) -> None:
    """Count what became of the verdicts of a page."""
    tally.identities_withdrawn += len(written.withdrawn)
    tally.resolved_now_unresolved += written.unresolved_now
    tally.kept_manual += written.kept
    for verdict in verdicts:
        tally.source_rows_skipped_null_confidence += verdict.skipped_sources
        if verdict.library_id not in written.rows:
            tally.skip(Skip.SUPERSEDED)
        elif verdict.kind is Kind.SINGLE_ARTIST:
            tally.resolved += 1
        elif verdict.kind is Kind.UNRESOLVED:
            tally.unresolved += 1
        elif verdict.tracks is None:
            tally.skip(Skip.COMPILATION)
        else:
            tally.resolved_compilations += 1
            tally.tracks += verdict.tracks.counts
    for counts in written.tracks.values():
        tally.tracks += counts


def tell(verdicts: Sequence[Verdict], written: Written) -> None:
    """Say in the log what a person should know of: ids and counts, never contents."""
    if written.withdrawn:
        _log.info(
            "identities withdrawn: their rows ask something else now, and nothing was found",
            rows=sorted(written.withdrawn)[:10],
            count=len(written.withdrawn),
        )
    keys = {v.library_id: len(v.tracks.keys) for v in verdicts if v.tracks is not None}
    unmatched = {row: counts[TrackCount.ROWS_NO_MATCH] for row, counts in written.tracks.items()}
    asked, missed = sum(keys[row] for row in unmatched), sum(unmatched.values())
    if drifted(asked, missed):
        _log.warning(
            "credits of LML match no row of ours, the two may spell differently",
            credits=asked,
            unmatched=missed,
            rows=sorted(unmatched, key=lambda row: (-unmatched[row], row))[:10],
        )
