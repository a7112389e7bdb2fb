"""Messages to systemd, if it started the daemon: ready, alive, stopping."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from datetime import timedelta

# Conventions of systemd, no settings of ours: sd_notify(3), sd_watchdog_enabled(3).
_ENVIRONMENT = os.environ  # noqa: TID251
# More would be 30,000 years.
_MICROSECONDS = re.compile("[0-9]{1,18}")


def listens() -> bool:
    """Return whether systemd wants to hear from us."""
    return bool(_ENVIRONMENT.get("NOTIFY_SOCKET"))


def longest_silence() -> timedelta | None:
    """Return how long systemd waits for a sign of life, None if it expects none."""
    microseconds = _ENVIRONMENT.get("WATCHDOG_USEC", "")
    is_for_us = _ENVIRONMENT.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if not is_for_us or not _MICROSECONDS.fullmatch(microseconds) or not int(microseconds):
        return None
    return timedelta(microseconds=int(microseconds))


def notify(*messages: str) -> None:
    """Send messages like `READY=1`, if systemd listens; never waits, never fails."""
    address = _ENVIRONMENT.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        # An abstract socket, which has no file.
        address = f"\0{address[1:]}"
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(0)
        sender.sendto("\n".join(messages).encode(), address)
