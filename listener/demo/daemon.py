"""The real daemon as a child process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from listener.demo.choices import DemoFailedError

_PACKAGE = Path(__file__).parents[3]
_STOP_SECONDS = 12
_END_SECONDS = 2
_LAST_WORDS = 8


class Daemon:
    """`listener run` with given settings, in a folder that has no other ones.

    It ends with the block, whatever happens.
    """

    def __init__(self, settings: Mapping[str, str], folder: Path, log: Path | None) -> None:
        """Prepare a daemon that logs to the file `log`, or to standard error."""
        # Not our own environment: proxies and other projects' settings must not apply.
        self._environment = {"PATH": os.defpath, "PYTHONPATH": str(_PACKAGE), **settings}
        self._folder = folder
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running daemon."""
        return self._running().pid

    def start(self) -> None:
        """Start it."""
        with (self._log or Path(os.devnull)).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "listener", "run"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log if self._log else None,
                # A Ctrl-C on the terminal goes to the demo, which then stops the daemon.
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill it, with no chance to clean up."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def stop(self) -> int:
        """Ask it to stop, and return its exit code; it may finish its calls in flight."""
        process = self._running()
        process.terminate()
        try:
            return process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            self._process = None

    def require(self) -> None:
        """Raise `DemoFailedError` if it is not running any more, unless we ended it."""
        if self._process is not None and self._process.poll() is not None:
            code = self._process.returncode
            words = "\n".join(self.last_words())
            raise DemoFailedError(f"the daemon ended with exit code {code}; its log ends:\n{words}")

    def last_words(self) -> list[str]:
        """Return the last lines of its log, none if that went to standard error."""
        if self._log is None or not self._log.exists():
            return []
        return self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_WORDS:]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it soon: it may still hand its lanes over, but finishes nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        process.kill()
        process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the daemon is not running")
        return self._process
