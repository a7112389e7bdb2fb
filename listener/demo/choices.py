"""The options of a demo, and the releases that it starts with."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path

from listener.demo.catalogue import Release, albums_tsv, releases

_MOST_RELEASES = 3000
_RELEASES_A_SECOND = 50


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of a demo."""

    seconds: float
    latency: timedelta
    folder: Path | None
    albums: Path | None
    invented: int | None
    keep_running: bool
    verbose: bool


class DemoFailedError(Exception):
    """The daemon ended or lost something, or nothing answered in time; the message says which."""


class UnfitError(Exception):
    """The demo cannot start with these options."""


@contextmanager
def folder_of(options: DemoOptions) -> Iterator[Path]:
    """Provide a folder for the length of the block: the chosen one, or a temporary one.

    Raises `UnfitError` if the chosen one holds anything but an earlier run.
    """
    if options.folder is None:
        # Short: a socket's path may not exceed 107 characters.
        folder = Path(tempfile.mkdtemp(prefix="listener-demo-"))
        # Where the demo runs as root, PostgreSQL does not.
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    folder = options.folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_foreign = any(folder.iterdir()) and not (folder / "data" / "PG_VERSION").exists()
    except OSError as error:
        raise UnfitError(f"cannot use the folder: {error}") from error
    if is_foreign:
        raise UnfitError(f"{folder} has other contents; give an empty or a new folder")
    yield folder


def catalogue_of(options: DemoOptions) -> list[Release]:
    """Return the releases to begin with: those of a file, invented ones, or both.

    Raises `UnfitError` if there are none, or the chosen folder has a library already.
    """
    _require_room(options)
    count = options.invented
    if count is None:
        scaled = min(_MOST_RELEASES, round(_RELEASES_A_SECOND * options.seconds))
        count = 0 if options.albums else scaled
    given = albums_tsv(options.albums) if options.albums else iter(())
    try:
        catalogue = list(chain(given, releases(count) if count else ()))
    except (OSError, ValueError, csv.Error) as error:
        message = f"{options.albums} is not a list of albums: {error}"
        raise UnfitError(message) from error
    if not catalogue:
        raise UnfitError(f"{options.albums} lists no albums")
    return catalogue


def _require_room(options: DemoOptions) -> None:
    has_library = options.folder and (options.folder / "data" / "PG_VERSION").exists()
    if has_library and (options.albums or options.invented):
        message = f"{options.folder} already has a library; use a new folder, or omit --albums"
        raise UnfitError(f"{message} and --releases")
