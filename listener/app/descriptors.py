"""Ensures enough file descriptors for the connections of a daemon or a command."""

from __future__ import annotations

import resource

from listener.settings import SettingsError

# 128 viewers of the page, as many calls to LML, some 30 sessions; Sentry, and Python's own files.
_NEEDED = 512


def require_descriptors() -> None:
    """Raise this process's limit of open files if needed; raises `SettingsError` if it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _NEEDED:
        return
    if hard != resource.RLIM_INFINITY and hard < _NEEDED:
        raise SettingsError(
            f"this process may open {hard} files, and listener needs {_NEEDED} for its "
            "connections; raise the limit: ulimit -n, LimitNOFILE= of systemd, --ulimit nofile="
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (_NEEDED, hard))
