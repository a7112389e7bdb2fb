"""What the engine needs from the outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from typing import Protocol

from listener.domain.budget import Grant, RefreshCause, RefreshLimits, Wait
from listener.domain.change import Look, Stream
from listener.domain.due import DueRow, Scope
from listener.domain.health import WakeMode
from listener.domain.judging import Invalid
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
from listener.domain.run import RunKind
from listener.domain.sample import Sample
from listener.domain.tally import Tally
from listener.domain.verdict import Verdict, VerdictPage, Written


class Outbox(Protocol):
    """The changes of a stream that nobody has settled."""

    async def look(
        self, stream: Stream, *, after: int, held: Sequence[int], limit: int, mark: bool = False
    ) -> Look:
        """Return up to `limit` changes after seq `after` except those in `held`, oldest first.

        The snapshot of the result has a mark if one is asked for; each costs a transaction id.
        """

    async def settle(self, stream: Stream, entries: Sequence[tuple[int, int]]) -> None:
        """Remove entries, given as (seq, row id)."""


class Lane(Protocol):
    """The right to follow a stream, and the means to be woken; raises `LaneLostError` once lost."""

    @property
    def wake_mode(self) -> WakeMode:
        """How changes make themselves known at present."""

    async def rouse(self) -> None:
        """Tell writers that the stream is being looked at: they need not wake anybody."""

    async def doze(self) -> int | None:
        """Have writers wake us again, if they were told not to.

        Returns the transaction id below which a transaction may have spared us the wake-up: while
        one of them is open its changes must be looked for. None if there is no such transaction.
        """

    async def wait(self, at_most: timedelta) -> bool:
        """Return True when woken, or False after `at_most`."""


class Lanes(Protocol):
    """Who follows which stream."""

    def hold(self, stream: Stream) -> AbstractAsyncContextManager[Lane]:
        """Stand by until the stream is ours, keep it for the length of the block, hand it over."""


class Library(Protocol):
    """The backend's releases, as far as LML is asked about them."""

    async def read(self, row_ids: Sequence[int]) -> Asking:
        """Return what there is to ask about these rows now; raises `StatementRefusedError`."""


class Verdicts(Protocol):
    """The identity tables and the ledger."""

    async def write(self, page: VerdictPage) -> Written:
        """Write the verdicts that still answer their row's question, and settle them.

        Rows neither written nor locked changed meanwhile, went, or have a newer verdict.
        Raises `StatementRefusedError` if the database refuses the page: it is all or nothing.
        """

    async def fail(
        self, order: int, failures: Sequence[Failure], entries: Sequence[tuple[int, int]]
    ) -> frozenset[int]:
        """Remember rows that could not be answered, and settle their changes.

        `order` is the one that the questions were read with. Returns the rows remembered: of the
        others a newer question was answered or failed meanwhile. Raises `StatementRefusedError`.
        """


class Reply(Protocol):
    """What LML answered to a page of questions."""

    @property
    def cache_stats(self) -> Mapping[str, float]:
        """What it says about LML's caches; empty until it was read."""

    async def read(self) -> Sequence[Verdict | Invalid]:
        """Return the results; raises as `Lml.ask` if there are none to be found in it."""


class Lml(Protocol):
    """The authority on identities."""

    async def ask(
        self, questions: Sequence[Question], *, with_tracks: bool = False, once: bool = False
    ) -> Reply:
        """Put one page of 1 to 1000 questions; a call that fails is repeated unless `once`.

        Raises `LmlUnavailableError` if no row is to blame; `CallInterruptedError` if LML or a row
        may be; `PageRefusedError` if a row may be; `TracksRefusedError` if the tracks may be, too.
        """


class Rotation(Protocol):
    """The backend's rotation rows."""

    async def read(self, row_ids: Sequence[int]) -> Sequence[Played]:
        """Return those of the rows that are being played."""

    async def fill(self, minted: Mapping[int, int], rows: Sequence[Played]) -> Mapping[int, bool]:
        """Write the identity that was minted for each row's Discogs release into the row.

        Returns of each row whether it was written, or else had changed; rows that are locked or
        gone are left out. Raises `StatementRefusedError`.
        """

    async def settle(self, entries: Sequence[tuple[int, int]], row_ids: Sequence[int]) -> None:
        """Remove changes, given as (seq, row id), and what is known of these rows' failures."""

    async def fail(
        self, failures: Sequence[RotationFailure], entries: Sequence[tuple[int, int]]
    ) -> None:
        """Remember rows that failed, and settle their changes."""

    async def raise_releases(self, library_ids: Sequence[int]) -> int:
        """Have those of the releases that are due asked about; returns how many."""


class PlayedIdentities(Protocol):
    """All that is being played."""

    async def identities(self, since: datetime) -> Mapping[int, Standing]:
        """Return all identities, with what was said about each since then.

        Those that answered lately come first.
        """

    async def coverage(self) -> RotationCoverage:
        """Return how much of what is being played can be warmed."""


class Warming(Protocol):
    """LML's release identities and its caches of them."""

    async def refresh(self, identity_ids: Sequence[int]) -> Mapping[int, Refreshed]:
        """Have 1 to 50 identities refreshed; returns what is said of each, raises as `Lml.ask`."""

    async def mint(self, discogs_release_id: int) -> int:
        """Return the identity of a Discogs release, made now if it is new; raises as `Lml.ask`."""


class Refreshes(Protocol):
    """The book of refresh calls: the budget that all processes share."""

    @property
    def limits(self) -> RefreshLimits:
        """What all of them together may ask."""

    async def take(self, cause: RefreshCause, *, known: bool, wanted: int) -> Grant | Wait:
        """Enter a call for up to `wanted` identities, all known lately or not, if one may go."""

    async def end(
        self, grant: Grant, *, cost: int, answered: int, refreshed: Mapping[int, Refreshed]
    ) -> None:
        """Write down what a call cost, and what LML said of each identity."""


class Due(Protocol):
    """The rows that deserve a question although no change says so."""

    def failed(self, scope: Scope) -> AsyncIterator[Sequence[DueRow]]:
        """Yield the rows that failed, and whose time to be tried again has come."""

    def by_time(self, scope: Scope) -> AsyncIterator[Sequence[DueRow]]:
        """Yield the rows whose time to be asked has come."""

    def by_content(self, scope: Scope) -> AsyncIterator[Sequence[DueRow]]:
        """Yield the rows that are due though no time says so, looking at every row."""

    def compilations(self, scope: Scope) -> AsyncIterator[Sequence[DueRow]]:
        """Yield the compilations that were asked before, whenever they are to be asked again."""


class Runs(Protocol):
    """The book of runs."""

    def enter(
        self,
        kind: RunKind,
        scope: Scope,
        cause: str,
        tally: Tally | RotationTally,
        *,
        wait: bool = True,
    ) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Wait until no other run covers the same rows; yields what notes the tally so far.

        Without `wait` it raises `RunGoesOnError` if one does.
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
        """Return the present slot, or None if some daemon took and finished it already.

        Slots are `every` long, counted from `begins` after the epoch.
        """

    async def finish(self, job: str, slot: datetime) -> None:
        """Mark a slot that was taken as done."""


class Bell(Protocol):
    """What wakes a job when its time has come."""

    async def wait(self, job: str, at_most: timedelta) -> None:
        """Return when the job's time has come, or after `at_most`."""

    def ringing(self) -> AbstractAsyncContextManager[object]:
        """Ring for the length of the block."""


class Telemetry(Protocol):
    """What operators' dashboards show; it never breaks what it reports on.

    The methods here report nothing.
    """

    def run(self, _kind: str, _tally: Tally | RotationTally, /) -> AbstractContextManager[None]:
        """Report a run once the block has ended, however it did, with the tally as it is then.

        A run within a run is part of it.
        """
        return nullcontext()

    def call(
        self, _batch_size: int, /
    ) -> AbstractContextManager[Callable[[Mapping[str, float]], None]]:
        """Report one call of LML, which lasts as long as the block.

        Yields what has to be called once the reply was read, with the cache statistics in it.
        """
        return nullcontext(lambda _cache_stats: None)

    def refresh(self, _identities: int, /) -> AbstractContextManager[None]:
        """Report one call that refreshes identities, which lasts as long as the block."""
        return nullcontext()

    def windows(self, _tally: Tally, /) -> AbstractContextManager[None]:
        """Report from time to time, for the length of the block, what was added to the tally."""
        return nullcontext()


class NoTelemetry(Telemetry):
    """Telemetry where nobody is listening."""


class Observer(Protocol):
    """Counts how changes move; neither waits nor fails. All times are seconds."""

    def settled(self, stream: Stream, ages: Sequence[float], /) -> None:
        """Note changes that were settled, by their ages since they were recorded."""

    def handled(self, stream: Stream, rows: int, took: float, /) -> None:
        """Note a batch that was handled, however that ended."""


class Samples(Protocol):
    """How the streams went; raises `StoreUnavailableError`."""

    async def write(self, sample: Sample) -> None:
        """Write a sample down."""

    async def count_coverage(self) -> Sequence[int]:
        """Count the library's rows in the order of `COVERAGE`."""

    async def fold(self, stream: Stream) -> None:
        """Make old samples coarser, and forget very old ones."""
