"""A standard error whose reader stalls, as that of a log driver may."""

from __future__ import annotations

import os


class Pipe:
    """Nobody reads it until it is asked to."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)

    def fill(self) -> int:
        """Leave no room for another byte; return how many are in it."""
        os.set_blocking(self.writing, False)
        filled = 0
        for size in (4096, 1):
            try:
                while True:
                    filled += os.write(self.writing, b"." * size)
            except BlockingIOError:
                continue
        os.set_blocking(self.writing, True)
        return filled

    def read(self) -> str:
        """Take everything that is in it now."""
        taken = b""
        while True:
            try:
                taken += os.read(self.reading, 65_536)
            except BlockingIOError:
                return taken.decode().lstrip(".")

    def close(self) -> None:
        """Close both ends."""
        os.close(self.reading)
        os.close(self.writing)
