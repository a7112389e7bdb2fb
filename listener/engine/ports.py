"""The ports: interfaces that adapters implement for the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol

from listener.domain.budget import Grant, RefreshCause, RefreshLimits, Wait
from listener.domain.change import Look, Stream
from listener.domain.due import DueRow, RunKind, Scope
from listener.domain.judging import Invalid
from listener.domain.pulse import Sample, WakeMode
from listener.domain.question import Asking, Question
from listener.domain.refreshing import (
    Played,
    Refreshed,
    RotationCoverage,
    RotationFailure,
    RotationTally,
    Standing,
)
from listener.domain.retrying import Failure
from listener.domain.tally import Tally
from listener.domain.verdict import Verdict, VerdictBatch, Written


class Outbox(Protocol):
    """The unsettled changes of the streams."""

    async def look(
        self, stream: Stream, *, after: int, held: Sequence[int], limit: int, mark: bool = False
    ) -> Look:
        """Return up to `limit` changes after seq `after`, oldest first, without those in `held`.

        With `mark` the result's snapshot has a mark, which costs a transaction id.
        """

    async def settle(self, stream: Stream, entries: Sequence[tuple[int, int]]) -> None:
        """Remove entries, given as pairs of (seq, row id)."""


class Lane(Protocol):
    """The right to follow a stream, and its wake-ups; raises `LaneLostError` once it is lost."""

    @property
    def wake_mode(self) -> WakeMode:
        """How the daemon learns of changes at present."""

    async def rouse(self) -> None:
        """Let writers skip wake-ups while the daemon looks at the outbox anyway."""

    async def doze(self) -> int | None:
        """Have writers send wake-ups again, if they skip them.

        Returns a transaction id below which an open transaction may have skipped its wake-up; until
        all of those have ended the outbox must be polled. None if there is no such transaction.
        """

    async def wait(self, at_most: timedelta) -> bool:
        """Return True when woken, or False after `at_most`."""


class Lanes(Protocol):
    """The lanes of all streams."""

    def hold(self, stream: Stream) -> AbstractAsyncContextManager[Lane]:
        """Stand by until the lane is free, hold it for the length of the block, then release it."""


class Library(Protocol):
    """The backend's releases, as questions to LML."""

    async def read(self, row_ids: Sequence[int]) -> Asking:
        """Return the current questions of these rows; raises `StatementRefusedError`."""


class Verdicts(Protocol):
    """The identity tables and the ledger."""

    async def write(self, batch: VerdictBatch) -> Written:
        """Write the verdicts that still answer their row's question, and settle their changes.

        Rows neither written nor locked have changed, were deleted, or have a newer verdict.
        Raises `StatementRefusedError` if the database refuses the batch; then nothing is written.
        """

    async def fail(
        self, order: int, failures: Sequence[Failure], entries: Sequence[tuple[int, int]]
    ) -> frozenset[int]:
        """Record failed rows in the ledger, and settle their changes.

        `order` is that of the reading which produced the questions. Returns the recorded rows; a
        newer question about the others has been answered or has failed. Raises
        `StatementRefusedError`.
        """


class Reply(Protocol):
    """LML's reply to a batch of questions."""

    @property
    def cache_stats(self) -> Mapping[str, float]:
        """LML's cache statistics; empty until the reply was read."""

    async def read(self) -> Sequence[Verdict | Invalid]:
        """Return the results; raises like `Lml.ask` if the reply contains none."""


class Lml(Protocol):
    """The authority on identities."""

    async def ask(
        self, questions: Sequence[Question], *, with_tracks: bool = False, once: bool = False
    ) -> Reply:
        """Ask one batch of 1 to 1000 questions; a call that fails is repeated unless `once`.

        Raises `LmlUnavailableError` if no row is to blame, `CallInterruptedError` if LML or a row
        may be, `BatchRefusedError` if a row may be, `TracksRefusedError` if the tracks may be, too.
        """


class Rotation(Protocol):
    """The backend's rotation rows."""

    async def read(self, row_ids: Sequence[int]) -> Sequence[Played]:
        """Return the rows that are being played."""

    async def fill(self, minted: Mapping[int, int], rows: Sequence[Played]) -> Mapping[int, bool]:
        """Write into each row the identity that was minted for its Discogs release.

        Returns for each row whether it was written (True) or had changed (False), without rows that
        are locked or were deleted. Raises `StatementRefusedError`.
        """

    async def settle(self, entries: Sequence[tuple[int, int]], row_ids: Sequence[int]) -> None:
        """Remove changes, given as pairs of (seq, row id), and these rows' recorded failures."""

    async def fail(
        self, failures: Sequence[RotationFailure], entries: Sequence[tuple[int, int]]
    ) -> None:
        """Record failed rows, and settle their changes."""

    async def raise_releases(self, library_ids: Sequence[int]) -> int:
        """Queue a question about each of the releases that is due; return how many."""


class PlayedIdentities(Protocol):
    """The identities of everything that is being played."""

    async def identities(self, since: datetime) -> Mapping[int, Standing]:
        """Return all identities, with the status of each since then.

        Those that answered lately come first.
        """

    async def coverage(self) -> RotationCoverage:
        """Return how many of the rows being played can be warmed."""


class Warming(Protocol):
    """LML's release identities and its caches of them."""

    async def refresh(self, identity_ids: Sequence[int]) -> Mapping[int, Refreshed]:
        """Refresh 1 to 50 identities; returns LML's report on each, raises like `Lml.ask`."""

    async def mint(self, discogs_release_id: int) -> int:
        """Return the identity of a Discogs release, created if needed; raises like `Lml.ask`."""


class Refreshes(Protocol):
    """The recorded refresh calls: the budget that all processes share."""

    @property
    def limits(self) -> RefreshLimits:
        """What all processes together may ask."""

    async def take(self, cause: RefreshCause, *, known: bool, wanted: int) -> Grant | Wait:
        """Record a call for up to `wanted` identities, all `known` or none, if one is allowed."""

    async def end(
        self, grant: Grant, *, cost: int, answered: int, refreshed: Mapping[int, Refreshed]
    ) -> None:
        """Record what a call cost, and LML's report on each identity.

        `answered` counts the identities about which LML gave a useful answer.
        """


class Due(Protocol):
    """The rows that deserve a question although no change says so."""

    def failed(self, scope: Scope) -> AsyncIterator[Sequence[DueRow]]:
        """Yield the failed rows that are due for a retry."""

    def by_time(self, scope: Scope) -> AsyncIterator[Sequence[DueRow]]:
        """Yield the rows that are due by time."""

    def by_content(self, scope: Scope) -> AsyncIterator[Sequence[DueRow]]:
        """Yield the rows that are due by their content, after looking at every row."""

    def compilations(self, scope: Scope) -> AsyncIterator[Sequence[DueRow]]:
        """Yield the compilations that were asked before, whenever their next question is due."""


class Runs(Protocol):
    """The record of runs."""

    def enter(
        self,
        kind: RunKind,
        scope: Scope,
        cause: str,
        tally: Tally | RotationTally,
        *,
        wait: bool = True,
    ) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Wait until no other run covers the same rows; yields a function that saves the tally.

        Without `wait` it raises `RunGoesOnError` if another run covers them.
        """


class Slots(Protocol):
    """The scheduled times of jobs."""

    async def take(
        self,
        job: str,
        every: timedelta,
        *,
        begins: timedelta = timedelta(),
        again: bool = False,
    ) -> datetime | None:
        """Return the current slot, or None if a daemon has already taken and finished it.

        Slots are `every` long, counted from `begins` after the epoch; the current one makes up for
        all that were missed. With `again` it is taken even if it is finished.
        """

    async def finish(self, job: str, slot: datetime) -> None:
        """Mark a slot as done."""


class Bell(Protocol):
    """Wakes jobs at their scheduled times."""

    async def wait(self, job: str, at_most: timedelta) -> None:
        """Return when the job's time has come, or after `at_most`."""

    def ringing(self) -> AbstractAsyncContextManager[object]:
        """Ring for the length of the block."""


class Samples(Protocol):
    """The samples of all streams; raises `StoreUnavailableError`."""

    async def write(self, sample: Sample) -> None:
        """Store a sample."""

    async def count_coverage(self) -> Sequence[int]:
        """Count the library's rows in the order of `COVERAGE`."""

    async def fold(self, stream: Stream) -> None:
        """Merge old samples, and delete very old ones."""
