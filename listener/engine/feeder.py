"""Brings the changes of a stream from the outbox into the waiting room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from listener.domain.change import Change, Look, LowWaterMark, Stream
from listener.domain.pacing import Backoff
from listener.domain.pulse import TURN
from listener.domain.room import Room
from listener.engine.clock import now
from listener.engine.ports import Lane, Outbox

_LOOK_EVERY = timedelta(milliseconds=7)
_FULL_ROOM_WAIT = timedelta(milliseconds=20)
_PAUSE_SLICE = timedelta(milliseconds=200)
_LOOKBACK = timedelta(seconds=1)
_WATCH = Backoff(first=timedelta(milliseconds=5), most=timedelta(milliseconds=250))


@dataclass(eq=False)
class Feeder:
    """Reads the outbox while changes arrive, and otherwise sleeps until woken.

    `turned_at` and `looked_at` are the times of the loop's last turn and last look. The feeder is
    `behind` from when a pause keeps it from looking until its next look.
    """

    stream: Stream
    outbox: Outbox
    room: Room
    lane: Lane
    poll: timedelta
    turned_at: float = field(default_factory=now, init=False)
    looked_at: float | None = field(default=None, init=False)
    behind: bool = field(default=False, init=False)
    _mark: LowWaterMark = field(default_factory=partial(LowWaterMark, _LOOKBACK), init=False)
    _found_before: bool = field(default=False, init=False)
    _watch_until: int | None = field(default=None, init=False)
    _watched: int = field(default=0, init=False)

    async def run(
        self,
        paused_for: Callable[[], timedelta],
        admit: Callable[[tuple[Change, ...]], list[tuple[int, int]]],
        resting: Callable[[], None],
    ) -> None:
        """Feed the room until cancelled; a change that is not admitted stays in the outbox.

        `paused_for` returns the time during which nothing may be claimed. `admit` takes claimed
        changes and returns the superseded ones, which are settled. `resting` is called whenever
        the outbox holds nothing unclaimed.
        """
        while True:
            self.turned_at = now()
            if pause := self._wait_before_look(paused_for()):
                # With a full room, looking is pointless until something leaves it.
                self.behind = self.room.free > 0
                # Writers need not wake it: it will look again anyway.
                await self.lane.rouse()
                await self.lane.wait(pause)
            else:
                look, everything = await self._look()
                if look.changes:
                    if superseded := admit(look.changes):
                        await self.outbox.settle(self.stream, superseded)
                    await self._stay_awake(everything=everything)
                elif everything:
                    resting()
                    await self._rest(look.snapshot.xmin)

    def _wait_before_look(self, quiet_for: timedelta) -> timedelta:
        """Return how long to wait before looking: while calls are paused, or the room is full."""
        if quiet_for:
            return min(quiet_for, _PAUSE_SLICE)
        return timedelta() if self.room.free else _FULL_ROOM_WAIT

    async def _look(self) -> tuple[Look, bool]:
        began = now()
        after = self._mark.start(began)
        look = await self.outbox.look(
            self.stream,
            after=after,
            held=self.room.held(after),
            limit=self.room.claimable,
            mark=self._mark.mark_due(began),
        )
        self.looked_at = now()
        self.behind = False
        everything = self._mark.looked(
            after, [change.seq for change in look.changes], look.snapshot, complete=look.complete
        )
        return look, everything

    async def _stay_awake(self, *, everything: bool) -> None:
        # Rousing costs two round trips, which a lone change is not worth.
        if self._found_before:
            await self.lane.rouse()
        self._found_before = True
        # Also while there is more to claim: unless it listens, wake-ups seem not to arrive.
        await self.lane.wait(_LOOK_EVERY if everything else timedelta())

    async def _rest(self, xmin: int) -> None:
        self._found_before = False
        dozed = await self.lane.doze()
        if dozed is not None:
            self._watch_until, self._watched = dozed, 0
        elif self._watch_until is not None and xmin < self._watch_until:
            self._watched += 1
            await self.lane.wait(_WATCH.delay(self._watched))
        else:
            self._watch_until = None
            if not await self._woken():
                self._mark.forget()

    async def _woken(self) -> bool:
        """Sleep until woken or for one poll interval, in turns; return whether it was woken.

        While the lane cannot be woken its wait returns early, and so does this.
        """
        left = self.poll
        while left > timedelta():
            turn = min(left, TURN)
            began = self.turned_at
            if await self.lane.wait(turn):
                return True
            self.turned_at = now()
            if self.turned_at - began < turn.total_seconds() / 2:
                return False
            left -= TURN
        return False
