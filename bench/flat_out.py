"""How late changes are claimed: eight writers flat out, the real daemon, LML answering at once."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from bench.database import SETTLED, searches, wait_until, wait_until_searched
from bench.following import prepared
from bench.harness import Figure, in_turn, median, show
from bench.process import running_daemon
from bench.writers import RENAME, pgbench

SECONDS, CLIENTS = 5, 8


def figures(rounds: int = 5) -> list[Figure]:
    """Measure from the trigger's clock to the claim, which is more than from the commit."""
    p50, p99, longest, rates, claimed = [], [], [], [], []
    with prepared() as bench, TemporaryDirectory() as folder:
        script = Path(folder) / "script.sql"
        script.write_text(RENAME, encoding="utf-8")
        # Of a library that was never asked about, the daemon would begin to ask beside the writers.
        bench.wait_everything()
        with running_daemon(bench.dsn, bench.lml.url):
            wait_until(bench.db, SETTLED)
        for _ in in_turn("flat out", rounds):
            before = searches(bench.db)
            with running_daemon(bench.dsn, bench.lml.url) as daemon:
                wait_until_searched(bench.db, before)
                rates.append(pgbench(bench.dsn, script, CLIENTS, SECONDS))
                wait_until(bench.db, SETTLED)
                report = daemon.stop()
            p50.append(report["claim_lag_ms_p50"])
            p99.append(report["claim_lag_ms_p99"])
            longest.append(report["claim_lag_ms_max"])
            claimed.append(report["changes_claimed"])
    return [
        Figure(
            "8 writers flat out: commit to claimed, p99",
            "<= 30 ms",
            f"{median(p99):.1f} ms",
            median(p99) <= 30,
            f"p50 {median(p50):.1f} ms, longest {median(longest):.0f} ms, "
            f"{median(rates):,.0f} tx/s, {median(claimed):,.0f} changes a round",
            p99,
        )
    ]


if __name__ == "__main__":
    show(figures(), "flat out")
