"""Measures every figure that the design is held to and prints them as tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

from bench import (
    claims,
    failures,
    flat_out,
    following,
    reconciling,
    rotation_load,
    scale,
    serving,
    sizes,
    tracks,
    writers,
)
from bench.harness import ROWS, Figure, machine, show

_HELP = "all if none is named; quick: one figure of each, in minutes"
_PARTS: dict[str, Callable[[argparse.Namespace], Sequence[Figure]]] = {
    "following": lambda given: following.figures(given.rounds),
    "failures": lambda given: failures.figures(given.rounds),
    "writers": lambda given: writers.figures(writers.Effort(rounds=given.rounds)),
    "flat-out": lambda given: flat_out.figures(given.rounds),
    "claims": lambda given: claims.figures(given.rounds),
    "reconciling": lambda given: reconciling.figures(given.rounds),
    # A round of it takes more than five minutes.
    "rotation": lambda given: rotation_load.figures(min(given.rounds, 2)),
    "tracks": lambda given: tracks.figures(given.rounds),
    "serving": lambda given: serving.figures(given.rounds),
    "scale": lambda given: scale.figures(given.rounds),
    "sizes": lambda given: sizes.figures(given.rows),
}

# One figure of each kind, on a machine that need not be quiet.
_QUICK: dict[str, Callable[[], Sequence[Figure]]] = {
    "following": following.quick,
    "failures": failures.quick,
    "writers": writers.quick,
    "flat-out": lambda: flat_out.figures(1),
    "claims": lambda: claims.figures(1),
    "reconciling": reconciling.quick,
    "rotation": rotation_load.quick,
    "tracks": lambda: tracks.figures(1),
    "serving": lambda: serving.figures(1),
    "scale": scale.quick,
}


def main() -> int:
    """Run the parts that are asked for; return 1 if a figure is not reached."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*_PARTS, "quick", []], help=_HELP)
    parser.add_argument("--rounds", type=int, default=3, help="readings a figure (default 3)")
    parser.add_argument(
        "--rows", type=int, default=10 * ROWS, help="rows of the large library of `sizes`"
    )
    given = parser.parse_args()
    sys.stdout.write(f"{machine()}\n")
    figures: list[Figure] = []
    for part, measure in _chosen(given).items():
        measured = measure()
        show(measured, part)
        figures += measured
    return 0 if all(figure.met for figure in figures) else 1


def _chosen(given: argparse.Namespace) -> dict[str, Callable[[], Sequence[Figure]]]:
    if "quick" in given.parts:
        return _QUICK
    return {part: partial(_PARTS[part], given) for part in given.parts or _PARTS}


if __name__ == "__main__":
    sys.exit(main())
