"""Containers that end with the tests, however those end."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import DockerClient

LABEL = "listener.tests"
_ANSWER_SECONDS, _WORK_SECONDS = 10, 60
_REMOVAL_SECONDS = 120


@contextmanager
def engine() -> Iterator[DockerClient | None]:
    """Yield a client of the container engine, or None if none answers."""
    # Imported here: without a need for containers nobody waits for this library.
    from docker.errors import DockerException  # noqa: PLC0415
    from testcontainers.core.docker_client import DockerClient as Engine  # noqa: PLC0415

    try:
        client = Engine(timeout=_ANSWER_SECONDS).client
    except DockerException:
        yield None
        return
    try:
        client.ping()
    except (DockerException, OSError):
        client.close()
        yield None
        return
    client.api.timeout = _WORK_SECONDS
    try:
        yield client
    finally:
        client.close()


@contextmanager
def removed_afterwards() -> Iterator[str]:
    """Yield a label; the containers and networks that bear it are removed after the block.

    A process of its own removes them as soon as its standard input ends, so they do not outlive
    this process either, not even one that was killed.
    """
    label = f"{LABEL}={uuid.uuid4()}"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.server.remover", label],
        stdin=subprocess.PIPE,
        text=True,
        # Ctrl-C is for the tests; what cleans up after them must not die of it.
        start_new_session=True,
    ) as remover:
        try:
            yield label
        finally:
            remover.communicate("the block was left\n", timeout=_REMOVAL_SECONDS)
    if remover.returncode:
        raise RuntimeError(f"containers may be left; look: docker ps --all --filter label={label}")
