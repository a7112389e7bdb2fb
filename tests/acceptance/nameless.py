"""`listener` on a machine whose resolver hangs, as it does where its servers do not answer."""

from __future__ import annotations

import socket
import sys
import threading

from listener.cli import main

WAITS_FOR_A_NAME = "waiting for a name"


def hang(*_: object, **__: object) -> None:
    """Say so, and never return."""
    sys.stderr.write(f"{WAITS_FOR_A_NAME}\n")
    threading.Event().wait()


if __name__ == "__main__":
    setattr(socket, "getaddrinfo", hang)  # noqa: B010 - what mypy keeps constant
    main()
