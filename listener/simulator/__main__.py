"""The simulator's command: prints its URL on one line and serves until it is stopped."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from typing import Any

import click

from listener.domain.words import WRITTEN
from listener.simulator.control import apply_switches
from listener.simulator.permits import PERMITS
from listener.simulator.server import LOOPBACK, serve
from listener.simulator.state import Latency, Simulator


class _Duration(click.ParamType[timedelta]):
    """A number of seconds, or `250ms`, `1s`, `2m`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: Any) -> timedelta:  # noqa: ANN401
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([0-9]*\.?[0-9]+)(ms|s|m|)", str(value))
        if found is None:
            self.fail(f"{value!r} is not a duration; give 0.2, 200ms, 1s or 2m", param, ctx)
        return timedelta(seconds=float(found[1]) * WRITTEN[found[2] or "s"])


DURATION = _Duration()


@click.command()
@click.option("--host", default=LOOPBACK, help="Address to serve on; 0.0.0.0 in a container.")
@click.option("--port", default=0, help="Port to serve on; 0 picks a free one.")
@click.option("--latency", type=DURATION, default="0", help="Time that every call takes.")
@click.option("--per-row", type=DURATION, default="0", help="Time that each row adds.")
@click.option("--jitter", type=DURATION, default="0", help="Longest random time to add.")
@click.option("--permits", default=PERMITS, help="Rows processed at a time; 0 for no limit.")
@click.option("--api-key", help="Bearer token that callers must send.")
@click.option(
    "--clock-factor", default=1.0, help="Speed of simulated time; 60 passes a minute a second."
)
@click.option(
    "--all-single", is_flag=True, help="Answer every question with a single artist and 3 sources."
)
@click.option("--kept-rows", default=0, help="Number of recent rows to remember.")
@click.option("--switches", default="{}", help="More switches, in the JSON of POST /_simulator.")
@click.option("--stdin", "watch_stdin", is_flag=True, help="Stop when standard input closes.")
def main(
    switches: str,
    host: str,
    port: int,
    *,
    watch_stdin: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Simulate LML; GET /_simulator returns counters, POST sets switches."""
    simulator = Simulator(
        latency=Latency(options["latency"], options["per_row"], options["jitter"]),
        permits=options["permits"] or None,
        api_key=options["api_key"],
        clock_factor=options["clock_factor"],
        kept_rows=options["kept_rows"],
    )
    apply_switches(simulator, {"knowledge": {"all_single": options["all_single"]}})
    apply_switches(simulator, json.loads(switches))
    asyncio.run(serve(simulator, port, host=host, watch_stdin=watch_stdin))


main()
