"""A terminal for one command."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from contextlib import suppress


def on_terminal(*command: str, width: int = 80, **settings: str) -> tuple[int, str]:
    """Run a command that is answered no if it asks; return its exit code and what was shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    with subprocess.Popen(
        command,
        env={"PATH": os.defpath, "TERM": "xterm-256color", **settings},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        # Linux reports by an error that the last process has left the terminal.
        with suppress(OSError):
            while part := os.read(ours, 65_536):
                shown += part
                if shown.endswith(b"[y/N]: "):
                    os.write(ours, b"n\n")
        os.close(ours)
    return process.returncode, shown.decode()
