"""Measures every figure that the design is held to and prints them as tables."""

from __future__ import annotations

import argparse
import sys

from bench import (
    claims,
    failures,
    flat_out,
    following,
    reconciling,
    rotation_load,
    serving,
    tracks,
    writers,
)
from bench.harness import show

_PARTS = (
    "following",
    "failures",
    "writers",
    "flat-out",
    "claims",
    "reconciling",
    "rotation",
    "tracks",
    "serving",
)


def main() -> int:
    """Run the parts that are asked for; return 1 if a figure is not reached."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*_PARTS, []], help="all if none is named")
    parser.add_argument("--rounds", type=int, default=5, help="readings a figure (default 5)")
    given = parser.parse_args()
    figures = []
    for part in given.parts or _PARTS:
        match part:
            case "following":
                measured = following.figures(given.rounds)
            case "failures":
                measured = failures.figures(given.rounds)
            case "writers":
                measured = writers.figures(writers.Effort(rounds=given.rounds))
            case "flat-out":
                measured = flat_out.figures(given.rounds)
            case "reconciling":
                measured = reconciling.figures(given.rounds)
            case "rotation":
                measured = rotation_load.figures(given.rounds)
            case "tracks":
                measured = tracks.figures(given.rounds)
            case "serving":
                measured = serving.figures(given.rounds)
            case _:
                measured = claims.figures(given.rounds)
        show(measured, part)
        figures += measured
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
