"""Decides how many identities may be refreshed now, and what that costs Discogs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Self

from listener.domain.refreshing import LML_REFRESH_BATCH_CAP

# Discogs allows LML 50 calls a minute for all callers; people who browse need about 20 of them.
DISCOGS_CALLS = 50 - 20
# A release and about three artists.
COLD_COST = 4.0
# LML works on five rows and identities at a time, for all callers. A cold identity holds its place
# while Discogs keeps LML waiting; this many leave one place for questions about the library.
_COLD_AT_ONCE = 4
# LML makes this many concurrent Discogs calls for all refreshes together.
_LANE_WIDTH = 2
# After this many identities their measured cost outweighs the initial guess.
_DOUBT = 3
_KNOWN_COST = 0.08
_LOOKS_IN_WINDOW = 20
# The walk leaves the rest to changes that arrive meanwhile, and to calls that cost more than most.
_WALK_SHARE = 0.8


class RefreshCause(StrEnum):
    """Why a refresh call is made: a changed row, or the walk over everything that is played."""

    CHANGE = "change"
    WALK = "walk"

    @property
    def share(self) -> float:
        """The share (0..1) of the budget that this cause may use."""
        return _WALK_SHARE if self is RefreshCause.WALK else 1.0


@dataclass(frozen=True, slots=True)
class RefreshLimits:
    """What all processes together may ask of LML within any `window`.

    They begin at most `calls` refresh calls, `in_flight` of them at a time, which may cost
    `discogs_calls` and hold `cold` identities that may be cold. A call ends within `call_timeout`.
    LML needs up to `warm_call` for a warm batch plus `warm_identity` for each identity; the rest of
    a call's time goes to Discogs, which needs at least `fastest_call` per call.
    """

    calls: int
    in_flight: int
    call_timeout: timedelta
    window: timedelta = timedelta(minutes=1)
    warm_call: timedelta = timedelta(milliseconds=100)
    warm_identity: timedelta = timedelta(milliseconds=8)
    fastest_call: timedelta = timedelta(milliseconds=200)
    discogs_calls: int = DISCOGS_CALLS
    cold: int = _COLD_AT_ONCE

    def shared(self, share: float) -> Self:
        """Return a share (above 0, to 1) of these limits, for one of several installations.

        A cold identity cannot be divided: the window grows until one costs no more than the share.
        """
        longer = max(1.0, COLD_COST / (self.discogs_calls * share))

        def part(whole: float) -> int:
            # The epsilon keeps rounding from costing a whole call.
            return max(1, math.floor(whole + 1e-9))

        return replace(
            self,
            calls=part(self.calls * share * longer),
            window=self.window * longer,
            discogs_calls=part(self.discogs_calls * share * longer),
            cold=part(self.cold * share),
        )

    @property
    def look_again(self) -> timedelta:
        """The longest wait before checking again: a call may cost less than reserved."""
        return self.window / _LOOKS_IN_WINDOW


@dataclass(frozen=True, slots=True)
class Spent:
    """What the recorded refresh calls have cost.

    `cost` counts the Discogs calls of the last window, including those expected of calls in flight;
    `frees_in` is the time until some of them leave the window. `learned_cost` is the cost of the
    latest `learned_identities` of the same kind, known or not. `cold_in_flight` counts the unknown
    identities in flight, plus as many of the known ones as their expected cost would pay for.
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
    """How many identities a call may ask about now, and its expected cost."""

    identities: int
    cost: int


@dataclass(frozen=True, slots=True)
class Wait:
    """No call is allowed now; check again after at most this time."""

    at_most: timedelta


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission to make one refresh call, already recorded; the caller must end it."""

    refresh_id: int
    identities: int


def decide(
    limits: RefreshLimits, spent: Spent, cause: RefreshCause, *, known: bool
) -> Allowance | Wait:
    """Decide how many identities one call may have now; `known` ones all answered lately.

    A batch uses what is left of the window. After a batch that cost more than expected no other is
    allowed until its cost has left the window.
    """
    calls = max(1, math.floor(limits.calls * cause.share))
    if spent.in_flight < limits.in_flight and spent.calls < calls:
        each = _expected(spent, known=known)
        size = _affordable(limits.discogs_calls * cause.share - spent.cost, each)
        # One identity may have more artists than the window has calls; ask about it anyway.
        if not spent.cost:
            size = max(1, size)
        size = min(size, _at_once(limits, spent, cause, each, known=known))
        if size:
            return Allowance(size, math.ceil(size * each))
    frees_in = spent.frees_in or limits.look_again
    return Wait(min(frees_in, limits.look_again))


def _expected(spent: Spent, *, known: bool) -> float:
    """Return the expected cost of one identity: a guess that measurements gradually replace."""
    guess = _KNOWN_COST if known else COLD_COST
    return (spent.learned_cost + _DOUBT * guess) / (spent.learned_identities + _DOUBT)


def _at_once(
    limits: RefreshLimits, spent: Spent, cause: RefreshCause, each: float, *, known: bool
) -> int:
    """Return how many more identities may be in flight, few of which may be cold.

    Known identities count as warm, unless their recent cost says otherwise.
    """
    left = max(0, max(1, math.floor(limits.cold * cause.share)) - spent.cold_in_flight)
    return max(left, _affordable(left * COLD_COST, min(each, COLD_COST))) if known else left


def _affordable(left: float, each: float) -> int:
    """Return how many identities almost always cost at most `left`, up to LML's own limit.

    Each is either warm or cold, so n of them cost n * each with a standard deviation of
    sqrt(n * each * (COLD_COST - each)); two of these are kept in reserve.
    """
    if left <= 0:
        return 0
    spread = max(0.0, each * (COLD_COST - each))
    root = (math.sqrt(spread + each * left) - math.sqrt(spread)) / each
    # The epsilon keeps rounding from costing a whole identity.
    return min(LML_REFRESH_BATCH_CAP, math.floor(root**2 + 1e-9))


def cost_of(limits: RefreshLimits, identities: int, parts: float, took: timedelta) -> int:
    """Return the most that a call may have cost; `parts` are the releases and artists it reports.

    A reply does not say which of them LML fetched; its duration limits how many those can be.
    """
    fetching = took - limits.warm_call - limits.warm_identity * identities
    return max(0, min(math.ceil(parts), _LANE_WIDTH * (fetching // limits.fastest_call)))
