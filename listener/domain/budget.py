"""How many identities may be refreshed now, and what that costs Discogs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from listener.domain.refreshing import LML_REFRESH_BATCH_CAP

# Discogs lets LML make 50 calls a minute for all callers; people who browse need about 20 of them.
DISCOGS_CALLS = 50 - 20
# One release and about three artists.
COLD_COST = 4.0
# LML works on five rows and identities at a time, for all callers. A cold identity is worked on for
# as long as Discogs keeps it waiting, so that many leave one for questions about the library.
COLD_AT_ONCE = 4
# LML makes that many Discogs calls at a time for all refreshes together.
LANE_WIDTH = 2
# After so many identities what is known of them outweighs what they are first taken to cost.
_DOUBT = 3
_KNOWN_COST = 0.08
_LOOKS_IN_WINDOW = 20
# Left by the walk: for changes that come while it goes on, and for pages that cost more than most.
_WALK_SHARE = 0.8


class RefreshCause(StrEnum):
    """What a refresh call is made for: rows that changed, or the walk over all that is played."""

    CHANGE = "change"
    WALK = "walk"

    @property
    def share(self) -> float:
        """The share (0..1) of the budget that it may use."""
        return _WALK_SHARE if self is RefreshCause.WALK else 1.0


@dataclass(frozen=True, slots=True)
class RefreshLimits:
    """What all processes together may ask of LML within any `window`.

    `calls` are refresh calls begun, `in_flight` those at a time, `discogs_calls` what they may
    cost. A call ends after `call_timeout` at the latest. A warm page takes LML up to `warm_call`
    and `warm_identity` for each identity; in the time beyond that Discogs takes at least
    `fastest_call` for a call.
    """

    calls: int
    in_flight: int
    call_timeout: timedelta
    window: timedelta = timedelta(minutes=1)
    warm_call: timedelta = timedelta(milliseconds=100)
    warm_identity: timedelta = timedelta(milliseconds=8)
    fastest_call: timedelta = timedelta(milliseconds=200)
    discogs_calls: int = DISCOGS_CALLS

    @property
    def look_again(self) -> timedelta:
        """How long to wait at most before the book is read again: calls may cost less than said."""
        return self.window / _LOOKS_IN_WINDOW


@dataclass(frozen=True, slots=True)
class Spent:
    """What the book of refresh calls shows.

    `cost` counts the Discogs calls of the last window, those expected of calls in flight included;
    `frees_in` is the time until some of it counts no more. `learned_cost` is what the latest
    `learned_identities` of the kind that is asked about cost. `cold_in_flight` counts identities in
    flight that nothing is known of, and as many of the others as their expected cost stands for.
    """

    cost: int
    calls: int
    in_flight: int
    frees_in: timedelta | None
    learned_cost: int
    learned_identities: int
    cold_in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many identities may be asked about now, which is expected to cost so much."""

    identities: int
    cost: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing may be asked now; look again after this time."""

    at_most: timedelta


@dataclass(frozen=True, slots=True)
class Grant:
    """A refresh call that was entered in the book: it is ours to make, and to end there."""

    refresh_id: int
    identities: int


def decide(
    limits: RefreshLimits, spent: Spent, cause: RefreshCause, *, known: bool
) -> Allowance | Wait:
    """Tell how many identities one call may have now, all `known` to have answered lately or not.

    A page is as large as what is left of the window can bear, so one that turns out dearer than
    expected is followed by none until its cost has left the window.
    """
    calls = max(1, math.floor(limits.calls * cause.share))
    if spent.in_flight < limits.in_flight and spent.calls < calls:
        each = _expected(spent, known=known)
        size = _affordable(limits.discogs_calls * cause.share - spent.cost, each)
        # One identity may have more artists than the window has calls; it is asked all the same.
        if not spent.cost:
            size = max(1, size)
        size = min(size, _at_once(spent, cause, each, known=known))
        if size:
            return Allowance(size, math.ceil(size * each))
    frees_in = spent.frees_in or limits.look_again
    return Wait(min(frees_in, limits.look_again))


def _expected(spent: Spent, *, known: bool) -> float:
    """Return what one identity is expected to cost: a guess that gives way to what is learned."""
    guess = _KNOWN_COST if known else COLD_COST
    return (spent.learned_cost + _DOUBT * guess) / (spent.learned_identities + _DOUBT)


def _at_once(spent: Spent, cause: RefreshCause, each: float, *, known: bool) -> int:
    """Return how many identities may be in flight besides: few that may be cold.

    Those that answered lately are warm, unless what they cost lately says otherwise.
    """
    left = max(0, math.floor(COLD_AT_ONCE * cause.share) - spent.cold_in_flight)
    return max(left, _affordable(left * COLD_COST, min(each, COLD_COST))) if known else left


def _affordable(left: float, each: float) -> int:
    """Return how many identities cost at most `left` nearly always, up to what LML takes.

    Each is either warm or cold, so n of them cost n * each, with a standard deviation of
    sqrt(n * each * (COLD_COST - each)): two of those are kept free.
    """
    if left <= 0:
        return 0
    spread = max(0.0, each * (COLD_COST - each))
    root = (math.sqrt(spread + each * left) - math.sqrt(spread)) / each
    # A hair more: the square of a root must not lose a whole identity.
    return min(LML_REFRESH_BATCH_CAP, math.floor(root**2 + 1e-9))


def cost_of(limits: RefreshLimits, identities: int, parts: float, took: timedelta) -> int:
    """Return what a call that reports on so many releases and artists may have cost Discogs.

    A reply does not say what was fetched and what was there; its time bounds what can have been.
    """
    fetching = took - limits.warm_call - limits.warm_identity * identities
    return max(0, min(math.ceil(parts), LANE_WIDTH * (fetching // limits.fastest_call)))
