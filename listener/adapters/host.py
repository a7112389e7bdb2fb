"""Signals, which end the process in bounded time, and messages to systemd if it runs us."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from threading import Lock, Thread
from typing import NoReturn

import structlog

_log = structlog.stdlib.get_logger()

_ENDING = (signal.SIGTERM, signal.SIGINT)
# Log rotation and closing terminals send these to processes that do not expect them.
_STRAY = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Time for cancelled work to end at the limit.
_LEAVE = timedelta(seconds=0.5)
_LOOK_AGAIN = timedelta(seconds=0.1)
# Conventions of systemd, not settings of ours: sd_notify(3), sd_watchdog_enabled(3).
_ENVIRONMENT = os.environ  # noqa: TID251
# More would be 30,000 years.
_MICROSECONDS = re.compile("[0-9]{1,18}")


def ignore_stray_signals() -> None:
    """Ignore signals that mean nothing to a daemon but would end it by default."""
    for number in _STRAY:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.SIG_IGN)


class Ending:
    """Waits for signals in its own thread, so that it works even if everything else hangs.

    After the first signal the process has `within` plus half a second to end by itself. Then it is
    ended with exit code `code`, by default 128 plus the signal's number. A second signal ends it at
    once. `last_words` is called before that. Create it once, in the main thread.
    """

    def __init__(
        self, within: timedelta, last_words: Callable[[], None], code: int | None = None
    ) -> None:
        self.heard: signal.Signals | None = None
        self._within = within + _LEAVE
        self._last_words = last_words
        self._code = code
        self._ends_at = float("inf")
        self._asking = Lock()
        self._ask: Callable[[], object] | None = None
        self._numbers, self._wire = socket.socketpair()
        self._wire.settimeout(0)
        signal.set_wakeup_fd(self._wire.fileno(), warn_on_full_buffer=False)
        for number in _ENDING:
            signal.signal(number, lambda *_: None)
        Thread(target=self._watch, name="signals", daemon=True).start()

    def calls(self, ask: Callable[[], object]) -> None:
        """Call `ask` in the running loop at the first signal, even if that came earlier."""
        with self._asking:
            self._ask = partial(asyncio.get_running_loop().call_soon_threadsafe, ask)
            if self.heard is not None:
                ask()

    def hurry(self) -> None:
        """Leave half a second for what still hangs after a signal: everything important is done."""
        self._ends_at = min(self._ends_at, time.monotonic() + _LEAVE.total_seconds())

    def _watch(self) -> None:
        first = self._next()
        if first is None:
            return
        self._ends_at = time.monotonic() + self._within.total_seconds()
        _log.info("stopping", signal=first.name)
        # Without anything to ask there is nothing to finish.
        if not self._pass_on(first):
            self._end(128 + first)
        second = self._next()
        if second is not None:
            self._end(128 + second)
        _log.warning("did not end in time, leaving what hangs behind")
        self._end(128 + first if self._code is None else self._code)

    def _pass_on(self, number: signal.Signals) -> bool:
        with self._asking:
            self.heard = number
            if self._ask is None:
                return False
            try:
                self._ask()
            except RuntimeError:
                # The loop has already ended.
                return False
        return True

    def _next(self) -> signal.Signals | None:
        """Return the next signal, or None if none comes before the process must end."""
        while (left := self._ends_at - time.monotonic()) > 0:
            # In slices, because `hurry` may shorten the time.
            slice_ = None if self.heard is None else min(left, _LOOK_AGAIN.total_seconds())
            if select.select([self._numbers], [], [], slice_)[0]:
                number = self._numbers.recv(1)[0]
                if number in _ENDING:
                    return signal.Signals(number)
        return None

    def _end(self, code: int) -> NoReturn:
        self._last_words()
        os._exit(code)


def listens() -> bool:
    """Return whether systemd expects messages from us."""
    return bool(_ENVIRONMENT.get("NOTIFY_SOCKET"))


def longest_silence() -> timedelta | None:
    """Return how long systemd waits for a sign of life, None if it does not watch us."""
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
