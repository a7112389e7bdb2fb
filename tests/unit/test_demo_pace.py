"""How the demo's week is spread over the available time."""

from __future__ import annotations

from listener.demo.story import Need, pause_before


def test_slack_is_shared_by_the_steps_that_remain() -> None:
    assert pause_before(9.0, [Need(1.0), Need(1.0), Need(1.0)]) == 2.0


def test_no_pause_when_time_is_short() -> None:
    assert pause_before(2.0, [Need(1.0), Need(4.0)]) == 0.0


def test_a_step_that_would_end_too_late_is_left_out() -> None:
    assert pause_before(2.0, [Need(3.0), Need(1.0)]) is None


def test_optional_step_is_skipped_for_the_sake_of_later_steps() -> None:
    needs = [Need(2.0, optional=True), Need(4.0)]

    assert pause_before(5.0, needs) is None
    assert pause_before(6.0, needs) == 0.0


def test_a_long_week_does_not_fall_asleep() -> None:
    assert pause_before(3600.0, [Need(1.0)]) == 6.0
