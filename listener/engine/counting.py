"""Counts the outcomes of questions, and logs what a person should know, without row contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import structlog

from listener.domain.judging import Judgement, LoggedOnce, oddities
from listener.domain.question import Question
from listener.domain.retrying import Failure
from listener.domain.tally import Skip, Tally
from listener.domain.tracks import TrackCount, drifted
from listener.domain.verdict import Kind, Verdict, Written

_log = structlog.stdlib.get_logger()


def count(tally: Tally, verdicts: Sequence[Verdict], written: Written) -> None:
    """Count the outcomes of a batch of verdicts."""
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


def log_written(verdicts: Sequence[Verdict], written: Written) -> None:
    """Log withdrawn identities, and a batch in which too many credits match no row."""
    if written.withdrawn:
        _log.info(
            "identities withdrawn: their rows changed, and LML finds none for them now",
            rows=sorted(written.withdrawn)[:10],
            count=len(written.withdrawn),
        )
    keys = {v.library_id: len(v.tracks.keys) for v in verdicts if v.tracks is not None}
    unmatched = {row: counts[TrackCount.ROWS_NO_MATCH] for row, counts in written.tracks.items()}
    asked, missed = sum(keys[row] for row in unmatched), sum(unmatched.values())
    if drifted(asked, missed):
        _log.warning(
            "many credits from LML match no row, spellings may differ",
            credits=asked,
            unmatched=missed,
            rows=sorted(unmatched, key=lambda row: (-unmatched[row], row))[:10],
        )


def log_oddities(verdicts: Sequence[Verdict], logged: LoggedOnce) -> None:
    """Log what is odd about usable verdicts, each oddity once."""
    for each in verdicts:
        for odd in oddities(each.identity) if each.identity is not None else ():
            if logged.first(odd):
                _log.warning("odd verdict, logged once", library_id=each.library_id, what=odd)


def log_misfit(questions: Sequence[Question], judgement: Judgement) -> None:
    """Log how a reply differs from what was asked."""
    _log.warning(
        "reply does not fit the questions",
        asked=len(questions),
        answered=len(judgement.accepted),
        unanswered={row: why for row, (_, why) in sorted(judgement.unanswered.items())[:10]},
        foreign=sorted(judgement.foreign)[:10],
        unattributed=judgement.nameless_invalid,
    )


def log_failures(failures: Sequence[Failure]) -> None:
    """Log which rows failed, and which of them were parked."""
    _log.warning(
        "rows cannot be answered",
        rows=sorted(failure.library_id for failure in failures)[:10],
        count=len(failures),
        reasons=dict(Counter(str(failure.reason) for failure in failures)),
    )
    for failure in failures:
        if failure.retry.parked:
            _log.error(
                "row parked",
                library_id=failure.library_id,
                reason=str(failure.reason),
                detail=failure.detail,
                failures=failure.retry.failures,
            )
