"""Advisory locks, which show other sessions what a session is doing."""

from __future__ import annotations

from collections.abc import Mapping

from listener.domain.change import Stream
from listener.domain.due import Scope, Search

# Distinguishes our locks from all others in the backend's database.
_CLASS = 1280528978


def _lock(number: int) -> Mapping[str, int]:
    """Return what our statements call a lock; below 10 each number has a meaning of its own."""
    return {"lock_class": _CLASS, "lock_number": number}


# Held by a process while it installs, uninstalls or grants, or checks whether it must.
INSTALLING = _lock(0)

# Held by the daemon that follows a stream while it is awake: writers need not wake it. The trigger
# functions know these two, and so do the queries that wake as they do.
AWAKE = {Stream.LIBRARY: _lock(1), Stream.ROTATION: _lock(2)}

# Held by a run for each of its searches: exclusive if it covers all rows, otherwise shared.
SEARCHED = {
    Search.BY_TIME: _lock(3),
    Search.BY_CONTENT: _lock(4),
    Search.COMPILATIONS: _lock(5),
    Search.FAILED: _lock(6),
    Search.IN_ROTATION: _lock(7),
}
_SHARES = 10

# Held for the length of a transaction that records a refresh call.
REFRESHES = _lock(8)


def lock_of_share(search: Search, scope: Scope) -> Mapping[str, int]:
    """Return the further lock of a run over one share; the last digit is the search."""
    share = scope.partitions * 10_000 + scope.partition
    return _lock(SEARCHED[search]["lock_number"] + _SHARES * share)
