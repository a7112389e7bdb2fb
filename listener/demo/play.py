"""The parts of the demo, and how it shows a change and its outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from rich.cells import cell_len

from listener.demo.daemon import Daemon
from listener.demo.screen import Screen
from listener.demo.watch import Outcome, Watch
from listener.demo.writers import Commit, Writers
from listener.domain.words import plural
from listener.simulator import SimulatorProcess

_KINDS = {
    "single_artist": ("single artist", "single artists"),
    "unresolved": ("unresolved", "unresolved"),
    "compilation": ("compilation", "compilations"),
    "visited_compilation": ("compilation by track", "compilations by track"),
}


@dataclass(slots=True)
class Play:
    """The running parts; `call` is how long LML takes for one question.

    `idle` collects the times of single changes that met an idle listener; `rotation_entries`
    counts the outbox entries of the rotation.
    """

    schema: str
    writers: Writers
    watch: Watch
    lml: SimulatorProcess
    daemon: Daemon
    screen: Screen
    call: timedelta
    idle: list[timedelta] = field(default_factory=list)
    rotation_entries: int = 0

    async def show(self, label: str, what: str, commit: Commit, *, idle: bool = False) -> None:
        """Wait for the verdicts on a commit's rows; print the time since it and the outcome."""
        took = await self.answered(commit)
        if idle:
            self.idle.append(took)
        self.screen.change(label, what, took, await self.outcome(commit))

    async def answered(self, commit: Commit) -> timedelta:
        """Wait for the verdicts on a commit's rows; return the time since it."""
        seen = await self.watch.answered(commit.ids)
        return timedelta(seconds=seen - commit.at)

    async def outcome(self, commit: Commit) -> str:
        """Describe what a commit's rows became."""
        return outcome_of(await self.watch.outcomes(commit.ids), self.screen.room_for_outcome)

    async def rotated(self, commit: Commit) -> timedelta:
        """Wait until a commit's rotation rows have left the outbox; return the time since it."""
        self.rotation_entries += len(commit.ids)
        seen = await self.watch.settled("rotation", commit.ids)
        return timedelta(seconds=seen - commit.at)

    async def asking(self) -> None:
        """Return once LML is working on a question."""

        async def fact() -> bool:
            return bool(self.lml.counters()["in_flight"].get("bulk"))

        await self.watch.until(fact, "a question to LML", patience=30)

    def questions(self) -> int:
        """Return how many questions LML received so far."""
        return int(self.lml.counters()["rows"].get("bulk", 0))


def outcome_of(outcomes: Sequence[Outcome], cells: int) -> str:
    """Describe what releases became, in at most `cells` columns where possible."""
    if len(set(map(str, outcomes))) > 1:
        counts = Counter(outcome.outcome for outcome in outcomes)
        return counted(counts)
    outcome = outcomes[0]
    text = _KINDS[outcome.outcome][0]
    if len(outcomes) > 1:
        text = counted(Counter({outcome.outcome: len(outcomes)}))
    if outcome.outcome == "single_artist":
        long = f"{text}: {', '.join(outcome.sources)}"
        short = f"{text}, {plural(len(outcome.sources), 'catalogue')}"
        return long if cell_len(long) <= cells else short
    return f"{text}, earlier identity kept" if outcome.identified else text


def counted(counts: Counter[str]) -> str:
    """Return the counts of each kind as text."""
    return ", ".join(
        f"{counts[kind]:,} {names[counts[kind] != 1]}"
        for kind, names in _KINDS.items()
        if counts[kind]
    )


def kinds(found: Any) -> str:  # noqa: ANN401 - a row of check_everything
    """Return the counts of releases of each kind as text."""
    counts = Counter(
        single_artist=found.single_artists,
        unresolved=found.unresolved,
        compilation=found.compilations,
        visited_compilation=found.visited_compilations,
    )
    return counted(counts)


def former_identities(count: int) -> str:
    """Return the count of former identities as text."""
    return f"{count:,} former {'identity' if count == 1 else 'identities'}"
