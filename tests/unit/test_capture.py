"""The watch over triggers."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

from listener.domain.change import Stream
from listener.domain.faults import StoreRefusedError
from listener.engine.reconciler import RunHaltedError
from listener.engine.supervisor import in_background
from listener.engine.watch import CaptureWatch
from tests.unit.clock import for_a_while

Logs = list[MutableMapping[str, Any]]

BOTH = frozenset(Stream)


@dataclass
class Triggers:
    """Triggers that come and go; `faults` are raised by searches, the first one first.

    `blind` is raised instead of the triggers, `keyless` instead of the foreign keys.
    """

    gone: frozenset[Stream] = frozenset()
    keys: dict[str, str] = field(default_factory=dict)
    blind: Exception | None = None
    keyless: Exception | None = None
    searched: list[Stream] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)

    async def look(self) -> frozenset[Stream]:
        if self.blind is not None:
            raise self.blind
        return self.gone

    async def misdirected(self) -> dict[str, str]:
        if self.keyless is not None:
            raise self.keyless
        return self.keys

    async def catch_up(self, stream: Stream) -> None:
        self.searched.append(stream)
        if self.faults:
            raise self.faults.pop(0)


def watch(triggers: Triggers) -> CaptureWatch:
    return CaptureWatch(triggers.look, triggers.catch_up, triggers.misdirected)


def seen_by(watching: CaptureWatch) -> frozenset[Stream] | None:
    return watching.uncaptured


async def test_no_search_is_made_while_everything_is_captured(logged: Logs) -> None:
    triggers = Triggers()
    watching = watch(triggers)
    async with in_background(watching.run()):
        await for_a_while(3600.0)
        assert seen_by(watching) == frozenset()
    assert seen_by(watching) is None
    assert not triggers.searched
    assert not logged


async def test_missing_triggers_are_logged_once_and_missed_changes_found(logged: Logs) -> None:
    triggers = Triggers(gone=BOTH)
    watching = watch(triggers)
    async with in_background(watching.run()):
        await for_a_while(600.0)
        assert watching.uncaptured == BOTH
        assert [(entry["log_level"], entry["stream"]) for entry in logged] == [
            ("error", "library"),
            ("error", "rotation"),
        ]
        triggers.gone = frozenset((Stream.ROTATION,))
        await for_a_while(600.0)
        assert triggers.searched == [Stream.LIBRARY]
        triggers.gone = frozenset()
        await for_a_while(600.0)
    assert triggers.searched == [Stream.LIBRARY, Stream.ROTATION]


async def test_failed_search_is_repeated(logged: Logs) -> None:
    faults = [RunHaltedError("LML is down"), ZeroDivisionError()]
    triggers = Triggers(gone=frozenset((Stream.LIBRARY,)), faults=faults)
    async with in_background(watch(triggers).run()):
        await for_a_while(60.0)
        triggers.gone = frozenset()
        await for_a_while(600.0)
    assert triggers.searched == [Stream.LIBRARY] * 3
    assert any(entry.get("reason") == "LML is down" for entry in logged)


async def test_foreign_key_to_a_replaced_table_is_logged_once_with_its_repair(logged: Logs) -> None:
    triggers = Triggers()
    async with in_background(watch(triggers).run()):
        for _ in range(2):
            triggers.keys = {"a_fkey of a refers to b_old": "ALTER TABLE a"}
            await for_a_while(600.0)
            triggers.keys = {}
            await for_a_while(600.0)
    assert [(entry["log_level"], entry["key"], entry["repair"]) for entry in logged] == [
        ("error", "a_fkey of a refers to b_old", "ALTER TABLE a")
    ] * 2


async def test_foreign_keys_that_cannot_be_read_hide_no_missing_trigger(logged: Logs) -> None:
    triggers = Triggers(gone=BOTH, keyless=StoreRefusedError("permission denied"))
    watching = watch(triggers)
    async with in_background(watching.run()):
        await for_a_while(60.0)
        assert watching.uncaptured == BOTH
    assert [entry["stream"] for entry in logged if "stream" in entry] == ["library", "rotation"]


async def test_triggers_that_cannot_be_read_hide_no_foreign_key(logged: Logs) -> None:
    keys = {"a_fkey of a refers to b_old": "ALTER TABLE a"}
    triggers = Triggers(keys=keys, blind=StoreRefusedError("permission denied"))
    async with in_background(watch(triggers).run()):
        await for_a_while(60.0)
    assert [entry["key"] for entry in logged if "key" in entry] == [*keys]
