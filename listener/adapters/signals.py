"""SIGTERM and SIGINT end the process in bounded time, whatever hangs in it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from threading import Lock, Thread
from typing import NoReturn

import structlog

_log = structlog.stdlib.get_logger()

_ENDING = (signal.SIGTERM, signal.SIGINT)
# What a rotation of logs or a closed terminal sends to a process that does not know of it.
_STRAY = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# For what is cancelled at the limit to come to its end.
_LEAVE = timedelta(seconds=0.5)
_LOOK_AGAIN = timedelta(seconds=0.1)


def ignore_stray_signals() -> None:
    """Have signals that mean nothing to a daemon not end it, as they would by default."""
    for number in _STRAY:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.SIG_IGN)


class Ending:
    """Hears the signals in a thread of its own, which nothing that hangs can keep from it.

    From the first signal on the process has `within` and half a second to end by itself. After that
    it is ended with the exit code `code`, by default 128 and the number of the signal. A second
    signal ends it at once. `last_words` is called before; made once, in the main thread.
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
        """Have `ask` called in the running loop at the first signal, also if that came before."""
        with self._asking:
            self._ask = partial(asyncio.get_running_loop().call_soon_threadsafe, ask)
            if self.heard is not None:
                ask()

    def hurry(self) -> None:
        """Give what still hangs half a second, if a signal came: all that matters is done."""
        self._ends_at = min(self._ends_at, time.monotonic() + _LEAVE.total_seconds())

    def _watch(self) -> None:
        first = self._next()
        if first is None:
            return
        self._ends_at = time.monotonic() + self._within.total_seconds()
        _log.info("stopping", signal=first.name)
        # Where nobody can be asked there is nothing to finish.
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
                # The loop has ended.
                return False
        return True

    def _next(self) -> signal.Signals | None:
        """Return the next signal, None if there is none until the process has to end."""
        while (left := self._ends_at - time.monotonic()) > 0:
            # In slices: the limit may be drawn nearer.
            slice_ = None if self.heard is None else min(left, _LOOK_AGAIN.total_seconds())
            if select.select([self._numbers], [], [], slice_)[0]:
                number = self._numbers.recv(1)[0]
                if number in _ENDING:
                    return signal.Signals(number)
        return None

    def _end(self, code: int) -> NoReturn:
        self._last_words()
        os._exit(code)
