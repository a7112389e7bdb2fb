"""How many identities may be refreshed at a time, and their expected cost."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.domain.budget import (
    COLD_COST,
    DISCOGS_CALLS,
    Allowance,
    RefreshCause,
    RefreshLimits,
    Spent,
    Wait,
    cost_of,
    decide,
)
from listener.domain.refreshing import LML_REFRESH_BATCH_CAP

LIMITS = RefreshLimits(calls=30, in_flight=2, call_timeout=timedelta(minutes=6))
NOTHING = Spent(0, 0, 0, None, 0, 0)
WALK, CHANGE = RefreshCause.WALK, RefreshCause.CHANGE


MINUTE = timedelta(minutes=1)


def size(spent: Spent = NOTHING, cause: RefreshCause = WALK, *, known: bool = False) -> int:
    decision = decide(LIMITS, spent, cause, known=known)
    return decision.identities if isinstance(decision, Allowance) else 0


def learned(cost: int, identities: int) -> Spent:
    return replace(NOTHING, learned_cost=cost, learned_identities=identities)


def test_people_leave_thirty_discogs_calls_a_minute() -> None:
    assert DISCOGS_CALLS == 30
    assert LIMITS.window == timedelta(minutes=1)


def test_unknown_identities_count_as_cold() -> None:
    assert decide(LIMITS, NOTHING, WALK, known=False) == Allowance(3, 12)
    assert decide(LIMITS, NOTHING, CHANGE, known=False) == Allowance(4, 16)


def test_recently_answered_identities_go_in_full_batches() -> None:
    assert size(known=True) == LML_REFRESH_BATCH_CAP == 50
    assert size(learned(0, 60), known=True) == 50


@given(
    learned_cost=st.integers(0, 1000),
    identities=st.integers(0, 120),
    walking=st.integers(0, 3),
)
def test_possibly_cold_identities_in_flight_leave_a_permit_for_questions(
    learned_cost: int, identities: int, walking: int
) -> None:
    spent = replace(learned(learned_cost, identities), cold_in_flight=walking)
    walk, change = size(spent, WALK), size(spent, CHANGE)
    assert walk + walking <= 3
    assert change + walking <= 4
    # The walk leaves room for a change.
    assert change >= 1
    mixed = size(spent, WALK, known=True)
    each = min(COLD_COST, (learned_cost + 0.24) / (identities + 3))
    cold = mixed * each / COLD_COST
    assert mixed <= 3 or cold + 2 * math.sqrt(cold * (1 - each / COLD_COST)) <= 3 - walking + 0.1


def test_batches_of_known_identities_grow_as_replies_turn_out_warm() -> None:
    sizes = [size(learned(60, identities), known=True) for identities in (15, 30, 120, 600, 1200)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (3, 50)


def test_batch_that_costs_almost_nothing_does_not_count_as_free() -> None:
    assert decide(LIMITS, learned(0, 60), WALK, known=True) == Allowance(50, 1)


def test_one_cold_batch_makes_the_next_one_small() -> None:
    assert size(learned(200, 50), known=True) == 3


@pytest.mark.parametrize("cause", RefreshCause)
def test_batch_that_cost_more_than_the_window_is_followed_by_none(cause: RefreshCause) -> None:
    spent = replace(learned(200, 50), cost=200, calls=1, frees_in=timedelta(seconds=40))
    for known in (True, False):
        assert isinstance(decide(LIMITS, spent, cause, known=known), Wait)


def test_walk_leaves_a_fifth_for_changes() -> None:
    spent = replace(NOTHING, cost=24, calls=1)
    assert size(spent, WALK) == 0
    assert size(spent, CHANGE) == 1
    assert size(replace(NOTHING, calls=24), WALK, known=True) == 0
    assert size(replace(NOTHING, calls=24), CHANGE, known=True) == 50
    assert size(replace(NOTHING, calls=30), CHANGE, known=True) == 0


def test_whole_share_changes_nothing() -> None:
    assert LIMITS.shared(1) == LIMITS


@given(share=st.floats(0.01, 1))
def test_shares_add_up_to_what_one_installation_may_cost(share: float) -> None:
    limits = LIMITS.shared(share)
    minutes = limits.window / MINUTE
    assert limits.discogs_calls / minutes <= DISCOGS_CALLS * share + 1e-6
    assert limits.calls / minutes <= LIMITS.calls * share + 1e-6
    assert limits.cold <= max(1, LIMITS.cold * share + 1e-6)


@given(share=st.floats(0.01, 1), cause=st.sampled_from(RefreshCause))
def test_smallest_share_has_room_for_one_cold_identity_at_a_time(
    share: float, cause: RefreshCause
) -> None:
    limits = LIMITS.shared(share)
    first = decide(limits, NOTHING, cause, known=False)
    assert isinstance(first, Allowance)
    assert first.cost <= limits.discogs_calls
    spent = replace(NOTHING, cost=limits.discogs_calls, calls=1)
    assert isinstance(decide(limits, spent, cause, known=False), Wait)


def test_tenth_of_the_budget_allows_one_cold_identity_per_eighty_seconds() -> None:
    limits = LIMITS.shared(0.1)
    assert limits.window == timedelta(seconds=80)
    assert decide(limits, NOTHING, WALK, known=False) == Allowance(1, 4)
    # Known identities cost next to nothing, so their pages grow to full ones.
    assert decide(limits, learned(0, 60), WALK, known=True) == Allowance(50, 1)


def test_calls_in_flight_are_bounded() -> None:
    assert size(replace(NOTHING, in_flight=1), known=True) == 50
    assert size(replace(NOTHING, in_flight=2), known=True) == 0


def test_one_identity_is_allowed_whatever_it_costs_if_no_other_call_counts() -> None:
    dear = learned(6000, 60)
    assert size(dear) == 1
    assert size(replace(dear, cost=1)) == 0


def test_even_the_lowest_rate_allows_a_walk() -> None:
    limits = replace(LIMITS, calls=1)
    assert isinstance(decide(limits, NOTHING, WALK, known=False), Allowance)
    assert isinstance(decide(limits, replace(NOTHING, calls=1), WALK, known=False), Wait)


def test_wait_ends_when_the_window_frees_something_or_calls_may_have_ended() -> None:
    spent = replace(NOTHING, cost=30, calls=1, frees_in=timedelta(seconds=1))
    assert decide(LIMITS, spent, WALK, known=False) == Wait(timedelta(seconds=1))
    spent = replace(spent, frees_in=timedelta(seconds=50))
    assert decide(LIMITS, spent, WALK, known=False) == Wait(timedelta(seconds=3))


def test_cost_is_what_the_reply_reports_but_no_more_than_its_time_allows() -> None:
    # A warm page of 50 takes LML half a second.
    assert cost_of(LIMITS, 50, 200, timedelta(milliseconds=650)) == 0
    assert cost_of(LIMITS, 50, 200, timedelta(milliseconds=710)) == 2
    assert cost_of(LIMITS, 50, 200, timedelta(milliseconds=10_500)) == 100
    assert cost_of(LIMITS, 50, 200, timedelta(minutes=4)) == 200
    assert cost_of(LIMITS, 50, 0, timedelta(minutes=4)) == 0
    # A single identity for which LML fetched one release.
    assert cost_of(LIMITS, 1, 1, timedelta(milliseconds=400)) == 1
    assert cost_of(LIMITS, 1, 4, timedelta(milliseconds=50)) == 0


@given(
    cost=st.integers(0, 500),
    learned_cost=st.integers(0, 1000),
    identities=st.integers(0, 120),
    cause=st.sampled_from(RefreshCause),
    known=st.booleans(),
)
def test_granted_calls_are_never_expected_to_exceed_the_window(
    cost: int, learned_cost: int, identities: int, cause: RefreshCause, known: bool
) -> None:
    spent = Spent(cost, 1, 1, timedelta(seconds=1), learned_cost, identities)
    match decide(LIMITS, spent, cause, known=known):
        case Allowance(found, expected):
            assert 1 <= found <= LML_REFRESH_BATCH_CAP
            assert cost == 0 or cost + expected <= math.ceil(DISCOGS_CALLS * cause.share)
        case Wait(at_most):
            assert timedelta() < at_most <= LIMITS.look_again


@given(warm=st.floats(0, 1), pages=st.integers(1, 5))
def test_two_deviations_of_a_mixed_batch_are_kept_in_reserve(warm: float, pages: int) -> None:
    each = COLD_COST * (1 - warm)
    found = size(learned(round(each * 1000), 1000))
    spread = math.sqrt(found * max(0.0, each * (COLD_COST - each)))
    assert found == LML_REFRESH_BATCH_CAP or found * each + 2 * spread <= 24 + 1
