"""What `sweep` does with the rotation, and how it reports on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from listener.app.walking import count_walk, run_walk
from listener.cli.progress import show_progress
from listener.domain.refreshing import RefreshStatus, RotationTally
from listener.domain.words import plural
from listener.settings import Settings


@dataclass(slots=True)
class Walk:
    """A walk as requested, with its result; a `dry` one only counts, in `found`."""

    dry: bool
    force: bool
    tally: RotationTally = field(default_factory=RotationTally)
    found: int = 0

    async def make(self, settings: Settings) -> None:
        """Make the walk; raises as `run_walk`."""
        if self.dry:
            self.found = await count_walk(settings)
            return
        with show_progress(self.tally) as expect:
            await run_walk(settings, self.tally, force=self.force, expect=expect)

    @property
    def did_something(self) -> bool:
        """Whether there was anything to refresh; an empty rotation is not reported."""
        return bool(self.tally.scanned or self.tally.mints.total() or self.found)

    def report(self) -> dict[str, int]:
        """Return the counts for JSON."""
        return {"would_refresh": self.found} if self.dry else self.tally.fields()

    def lines(self) -> list[str]:
        """Return the counts for a person."""
        tally = self.tally
        if not self.did_something:
            return ["rotation            0 identities"]
        calls = f"{plural(tally.calls, 'refresh call')} to LML"
        if tally.calls:
            calls += f", {tally.latency.total_seconds() * 1000 / tally.calls:,.0f} ms each"
        counts = tally.fields()
        return [
            f"rotation    {tally.scanned:>9,} identities",
            f"warmed      {tally.with_status(RefreshStatus.WARMED):>9,}",
            f"releases    {counts['warmed_releases']:>9,}",
            f"artists     {counts['warmed_artists']:>9,}",
            f"not found   {counts['not_found']:>9,}",
            f"not implemented {counts['not_implemented']:>5,}",
            f"failed      {counts['lml_error']:>9,}",
            *(f"{name:<11} {tally.mints[name]:>9,}" for name in tally.mints if tally.mints[name]),
            calls,
        ]
