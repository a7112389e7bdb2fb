"""Removes the containers and networks of a label when standard input ends."""

from __future__ import annotations

import sys
from contextlib import suppress
from threading import Event

from docker.errors import APIError

from tests.server.containers import engine

# A start that was under way when its process was killed shows within this time.
_LATE_SECONDS = 5


def main(label: str) -> int:
    """Wait for the end of the tests, then remove; return the exit code."""
    ended_by_itself = bool(sys.stdin.readline())
    pause = Event()
    for _ in range(1 if ended_by_itself else _LATE_SECONDS):
        if not ended_by_itself:
            pause.wait(1)
        if not _removed(label):
            return 1
    return 0


def _removed(label: str) -> bool:
    with engine() as client:
        if client is None:
            return False
        chosen: dict[str, str | list[str] | bool] = {"label": label}
        for container in client.containers.list(all=True, filters=chosen, ignore_removed=True):
            # Another may be removing it: it was run with --rm, or by hand.
            with suppress(APIError):
                container.remove(force=True, v=True)
        for network in client.networks.list(filters=chosen):
            with suppress(APIError):
                network.remove()
        return not client.containers.list(all=True, filters=chosen, ignore_removed=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
