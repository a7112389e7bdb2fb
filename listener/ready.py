"""Asks the daemon of this container whether it is ready; the image's health check runs it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from listener.domain.words import trimmed

_DEFAULT = "127.0.0.1:8080"
_OK = "200"
_SECONDS = 3
_LONGEST_ANSWER = 65_536
# A daemon that listens on all addresses is asked on this host.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - asked, not bound


def main() -> int:
    """Print the daemon's answer; return 0 if it is ready or there is none to ask, otherwise 1."""
    # Read here too: this runs every few seconds, and loading the settings takes longer than
    # everything else.
    bind = str(trimmed(os.environ.get("HTTP_BIND", _DEFAULT)))  # noqa: TID251
    if not bind or not runs_daemon(Path("/proc/1/cmdline").read_bytes()):
        return 0
    try:
        status, words = ask(bind)
    except (OSError, ValueError) as error:
        sys.stdout.write(f"no answer from {bind}: {error}\n")
        return 1
    sys.stdout.write(f"{status} {words}\n")
    return int(status != _OK)


def runs_daemon(command_line: bytes) -> bool:
    """Return whether a command line, as /proc shows it, is that of `listener run`."""
    return b"run" in command_line.replace(b"\0", b" ").split()


def ask(bind: str) -> tuple[str, str]:
    """Return the status and the text of /readyz at HOST:PORT.

    Raises OSError if nothing answers, ValueError if the address or the answer is invalid.
    """
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    address = (_EVERYWHERE.get(host, host), int(port))
    with socket.create_connection(address, _SECONDS) as connection:
        connection.sendall(f"GET /readyz HTTP/1.0\r\nHost: {bind}\r\n\r\n".encode())
        with connection.makefile("rb") as reply:
            head, _, body = reply.read(_LONGEST_ANSWER).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/"):
        raise ValueError("what answered does not speak HTTP")
    return head.split()[1].decode(), body.decode(errors="replace").strip()


if __name__ == "__main__":
    raise SystemExit(main())
