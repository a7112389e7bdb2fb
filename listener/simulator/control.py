"""The simulator's switches and counters over HTTP, for a simulator in another process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.responses import JSONResponse

from listener.simulator.faults import Fault
from listener.simulator.state import Simulator

# A switch names the fields to change; the group keeps the others.
_GROUPS = ("knowledge", "latency", "wire", "tracks", "discogs", "health")
_PLAIN: dict[str, TypeAdapter[Any]] = {
    "permits": TypeAdapter(int | None),
    "api_key": TypeAdapter(str | None),
    "max_body": TypeAdapter(int | None),
}
_FAULT = TypeAdapter(Fault)


def control(simulator: Simulator, method: str, body: bytes) -> JSONResponse:
    """Return the counters; a POST sets the switches in its JSON body first."""
    if method == "GET":
        return JSONResponse(simulator.counters())
    try:
        apply_switches(simulator, from_json(body))
    except (ValidationError, ValueError, TypeError) as error:
        return JSONResponse({"message": str(error)}, 400)
    return JSONResponse(simulator.counters())


def apply_switches(simulator: Simulator, switches: dict[str, Any]) -> None:
    """Set switches by name; raises ValueError for an unknown name or an invalid value.

    Durations are seconds. Groups of the same names as `Simulator`'s attributes: `knowledge`,
    `latency`, `wire`, `tracks`, `discogs`, `health`, `identities` (its mix). Values: `permits`,
    `api_key`, `max_body`, `clock_factor`. Acts: `faults` (a list to add), `clear_faults` (true or
    a name), `gate` (`shut`, `open`), `refuse_discogs` (next calls answering 429), `cool`
    (identity ids), `reset_calls`.
    """
    for name, value in switches.items():
        if name in _GROUPS:
            setattr(simulator, name, _merged(getattr(simulator, name), value))
        elif name in _PLAIN:
            setattr(simulator, name, _PLAIN[name].validate_python(value))
        elif name in _ACTS:
            _ACTS[name](simulator, value)
        else:
            text = f"there is no switch {name!r}; known: {sorted({*_GROUPS, *_PLAIN, *_ACTS})}"
            raise ValueError(text)


def _merged(current: Any, changes: dict[str, Any]) -> Any:  # noqa: ANN401 - any of the groups
    names = [field.name for field in fields(current)]
    given = {name: getattr(current, name) for name in names} | changes
    if unknown := sorted(changes.keys() - set(names)):
        text = f"{type(current).__name__} has no {', '.join(unknown)}; it has {', '.join(names)}"
        raise ValueError(text)
    return TypeAdapter(type(current)).validate_python(given)


def _set_mix(simulator: Simulator, value: dict[str, Any]) -> None:
    simulator.identities.mix = _merged(simulator.identities.mix, value)


def _set_clock_factor(simulator: Simulator, factor: float) -> None:
    simulator.clock.change(factor)


def _add_faults(simulator: Simulator, faults: list[dict[str, Any]]) -> None:
    for fault in [_FAULT.validate_python(fault) for fault in faults]:
        simulator.faults.add(fault)


def _clear_faults(simulator: Simulator, name: str | bool) -> None:  # noqa: FBT001 - a JSON value
    simulator.faults.clear(name if isinstance(name, str) else None)


def _move_gate(simulator: Simulator, position: str) -> None:
    {"shut": simulator.gate.shut, "open": simulator.gate.open}[position]()


def _refuse_discogs(simulator: Simulator, calls: int) -> None:
    simulator.budget.refusals_due = calls


def _cool(simulator: Simulator, identity_ids: Iterable[int]) -> None:
    simulator.identities.cool(identity_ids)


def _reset_calls(simulator: Simulator, _: object) -> None:
    simulator.calls.reset()


_ACTS: dict[str, Callable[[Simulator, Any], None]] = {
    "identities": _set_mix,
    "clock_factor": _set_clock_factor,
    "faults": _add_faults,
    "clear_faults": _clear_faults,
    "gate": _move_gate,
    "refuse_discogs": _refuse_discogs,
    "cool": _cool,
    "reset_calls": _reset_calls,
}
