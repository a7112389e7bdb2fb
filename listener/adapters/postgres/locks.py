"""The advisory locks, by which sessions show one another what they are doing."""

from __future__ import annotations

from dataclasses import dataclass

from listener.domain.change import Stream
from listener.domain.due import Scope, Search

# Distinguishes our locks from all others in the backend's database.
_CLASS = 1280528978


@dataclass(frozen=True, slots=True)
class Lock:
    """One of our locks; below 10 each number has a meaning of its own."""

    number: int

    def parameters(self) -> dict[str, int]:
        """Return what our statements call it."""
        return {"lock_class": _CLASS, "lock_number": self.number}


# Held by a process while it installs, uninstalls or grants, or looks whether it must.
INSTALLING = Lock(0)

# Held by the daemon that follows a stream while it is awake: writers need not wake it. The trigger
# functions know these two, and so do the queries that wake as they do.
AWAKE = {Stream.LIBRARY: Lock(1), Stream.ROTATION: Lock(2)}

# Held by a run for each of its searches: alone if it is over all rows, else shared.
SEARCHED = {
    Search.BY_TIME: Lock(3),
    Search.BY_CONTENT: Lock(4),
    Search.COMPILATIONS: Lock(5),
    Search.FAILED: Lock(6),
    Search.IN_ROTATION: Lock(7),
}
_SHARES = 10

# Held for the length of a transaction that enters a call in the book of refreshes.
REFRESHES = Lock(8)


def lock_of_share(search: Search, scope: Scope) -> Lock:
    """Return what a run over one share of the rows holds besides; the last digit is the search."""
    share = scope.partitions * 10_000 + scope.partition
    return Lock(SEARCHED[search].number + _SHARES * share)
