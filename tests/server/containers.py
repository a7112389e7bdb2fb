"""Containers that end with the tests, however those end."""

from __future__ import annotations

import gc
import subprocess
import sys
import uuid
import warnings
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
    client = _connected()
    try:
        yield client
    finally:
        if client is not None:
            client.close()


def _connected() -> DockerClient | None:
    # Imported here: without a need for containers nobody waits for this library.
    from docker.errors import DockerException  # noqa: PLC0415
    from testcontainers.core.docker_client import DockerClient as Engine  # noqa: PLC0415

    with warnings.catch_warnings():
        # The library leaves the sockets of a failed attempt to the collector.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = Engine(timeout=_ANSWER_SECONDS).client
        except DockerException:
            client = None
        gc.collect()
    if client is not None:
        client.api.timeout = _WORK_SECONDS
    return client


@contextmanager
def removed_afterwards() -> Iterator[dict[str, str]]:
    """Yield labels; the containers and networks that bear them are removed after the block.

    A process of its own removes them as soon as its standard input ends, so they do not outlive
    this process either, not even one that was killed.
    """
    run = str(uuid.uuid4())
    label = f"{LABEL}={run}"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.server.remover", label],
        stdin=subprocess.PIPE,
        text=True,
        # Ctrl-C is for the tests; what cleans up after them must not die of it.
        start_new_session=True,
    ) as remover:
        try:
            yield {LABEL: run}
        finally:
            remover.communicate("the block was left\n", timeout=_REMOVAL_SECONDS)
    if remover.returncode:
        raise RuntimeError(f"containers may be left; look: docker ps --all --filter label={label}")
