"""The circuit towards LML: unanswered calls open it, answers never do; all callers share it."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any

import pytest

from listener.domain.change import Stream
from listener.domain.faults import CallInterruptedError, LmlRefusedError, LmlUnavailableError
from listener.domain.pacing import LML_BACKOFF, TRIAL, BreakerState
from listener.engine.circuit import Circuit
from tests.unit.clock import for_a_while

Logs = list[MutableMapping[str, Any]]

DOWN = LmlUnavailableError("ConnectError")
FIRST, MOST = LML_BACKOFF.first.total_seconds(), LML_BACKOFF.most.total_seconds()
JUST = 0.001


def state_of(circuit: Circuit) -> BreakerState:
    return circuit.state


def seconds(silence: timedelta) -> float:
    return silence.total_seconds()


async def test_closed_circuit_allows_every_call() -> None:
    circuit = Circuit(Stream.LIBRARY)
    assert state_of(circuit) is BreakerState.CLOSED
    assert not circuit.paused_for()
    assert circuit.begin_trial() is None
    assert not circuit.paused_for()
    assert (circuit.failures, circuit.fault) == (0, None)


async def test_fault_opens_it_and_is_kept_until_lml_replies() -> None:
    circuit = Circuit(Stream.LIBRARY)
    circuit.failed(DOWN)
    assert state_of(circuit) is BreakerState.OPEN
    assert seconds(circuit.paused_for()) == pytest.approx(FIRST, abs=JUST)
    assert (circuit.failures, circuit.fault) == (1, DOWN)
    later = CallInterruptedError("ReadTimeout")
    await for_a_while(FIRST)
    circuit.failed(later)
    assert (circuit.failures, circuit.fault) == (2, later)
    assert seconds(circuit.paused_for()) == pytest.approx(MOST, abs=JUST)
    circuit.replied()
    assert (circuit.failures, circuit.fault) == (0, None)
    assert state_of(circuit) is BreakerState.CLOSED
    assert not circuit.paused_for()


async def test_faults_during_a_pause_are_one_failure() -> None:
    circuit = Circuit(Stream.LIBRARY)
    for _ in range(3):
        circuit.failed(DOWN)
        await for_a_while(1.0)
    assert circuit.failures == 1
    assert seconds(circuit.paused_for()) == pytest.approx(FIRST - 3.0, abs=JUST)


async def test_pause_that_lml_asks_for_is_kept() -> None:
    circuit = Circuit(Stream.LIBRARY)
    circuit.failed(LmlUnavailableError("LML answered 503", timedelta(seconds=90)))
    circuit.heard(well=True)
    assert seconds(circuit.paused_for()) == pytest.approx(90, abs=JUST)
    await for_a_while(90)
    assert not circuit.paused_for()


async def test_one_row_is_tried_after_the_pause_while_others_wait() -> None:
    circuit = Circuit(Stream.LIBRARY)
    circuit.failed(DOWN)
    await for_a_while(FIRST)
    assert state_of(circuit) is BreakerState.HALF_OPEN
    assert not circuit.paused_for()
    assert circuit.begin_trial() == TRIAL == 1
    assert seconds(circuit.paused_for()) == pytest.approx(MOST, abs=JUST)
    circuit.end_trial()
    assert not circuit.paused_for()
    assert circuit.begin_trial() == TRIAL
    circuit.replied()
    assert not circuit.paused_for()
    assert circuit.begin_trial() is None


async def test_healthy_lml_ends_the_pause_once() -> None:
    circuit = Circuit(Stream.LIBRARY)
    circuit.failed(DOWN)
    circuit.heard(well=True)
    assert state_of(circuit) is BreakerState.HALF_OPEN
    assert not circuit.paused_for()
    circuit.failed(DOWN)
    circuit.heard(well=True)
    assert state_of(circuit) is BreakerState.OPEN
    circuit.heard(well=False)
    assert state_of(circuit) is BreakerState.OPEN
    circuit.heard(well=True)
    assert state_of(circuit) is BreakerState.HALF_OPEN


async def test_others_can_be_blamed_only_after_a_row_was_answered() -> None:
    circuit = Circuit(Stream.LIBRARY)
    assert not circuit.answered_since(timedelta(days=365))
    circuit.replied()
    assert not circuit.answered_since(timedelta(days=365))
    await for_a_while(10.0)
    circuit.answered()
    await for_a_while(10.0)
    assert circuit.answered_since(timedelta(seconds=11))
    assert not circuit.answered_since(timedelta(seconds=9))
    circuit.failed(DOWN)
    assert circuit.answered_since(timedelta(seconds=11))


async def test_answer_is_logged_only_after_failures(logged: Logs) -> None:
    circuit = Circuit(Stream.ROTATION)
    circuit.replied()
    assert logged == []
    circuit.failed(DOWN)
    await for_a_while(FIRST)
    circuit.failed(DOWN)
    logged.clear()
    circuit.replied()
    (entry,) = logged
    assert (entry["event"], entry["log_level"]) == ("LML answers again", "info")
    assert (entry["failures"], entry["stream"]) == (2, "rotation")
    circuit.replied()
    assert logged == [entry]


async def test_each_failure_is_logged_once(logged: Logs) -> None:
    circuit = Circuit(Stream.LIBRARY)
    circuit.failed(DOWN)
    circuit.failed(DOWN)
    await for_a_while(FIRST)
    circuit.failed(LmlUnavailableError("LML answered 503"))
    first, second = logged
    assert first == {
        "event": "LML unavailable, keeping changes in the outbox",
        "log_level": "warning",
        "stream": "library",
        "reason": "ConnectError",
        "failures": 1,
        "next_try_in_seconds": 8.0,
    }
    assert (second["reason"], second["failures"]) == ("LML answered 503", 2)
    assert (second["log_level"], second["next_try_in_seconds"]) == ("warning", 15.0)


async def test_refusal_is_an_error_once_and_then_a_reminder(logged: Logs) -> None:
    circuit = Circuit(Stream.LIBRARY)
    refused = LmlRefusedError("LML answered 401")
    for _ in range(3):
        circuit.failed(refused)
        await for_a_while(MOST)
    assert [entry["log_level"] for entry in logged] == ["error", "warning", "warning"]
    circuit.replied()
    circuit.failed(refused)
    assert logged[-1]["log_level"] == "error"
