"""Where the tests take their PostgreSQL from, and that no container outlives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from docker import DockerClient

from tests.acceptance.conftest import eventually
from tests.server import UnfitImageError, choose
from tests.server.containers import LABEL, engine, removed_afterwards

NOWHERE = "unix:///nonexistent/docker.sock"
KILLED = """
import os, sys
from tests.server.containers import engine, removed_afterwards
with removed_afterwards() as labels, engine() as client:
    client.containers.create(sys.argv[1], labels=labels)
    print(*labels.values(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LISTENER_TEST_DATABASE_URL", "LISTENER_TEST_IMAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def client() -> Iterator[DockerClient]:
    """Talk to the container engine."""
    with engine() as found:
        if found is None:
            pytest.skip("no container engine answers")
        yield found


def test_given_server_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTENER_TEST_DATABASE_URL", "postgresql://x/y")
    monkeypatch.setenv("LISTENER_TEST_IMAGE", "postgres:14")
    assert choose().url == "postgresql://x/y"


def test_embedded_server_is_used_if_no_engine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    choice = choose()
    assert (choice.url, choice.image) == (None, None)
    assert "no container engine answers" in choice.words


def test_embedded_server_is_used_if_no_image_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTENER_TEST_IMAGE", "")
    choice = choose()
    assert (choice.url, choice.image) == (None, None)
    assert "LISTENER_TEST_IMAGE is empty" in choice.words


def test_image_that_was_asked_for_must_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    monkeypatch.setenv("LISTENER_TEST_IMAGE", "postgres:14")
    with pytest.raises(UnfitImageError, match="'postgres:14': no container engine answers"):
        choose()


def test_containers_are_removed_after_the_block(client: DockerClient) -> None:
    image = _any_image(client)
    with removed_afterwards() as labels:
        client.containers.create(image, labels=labels)
        client.networks.create(f"listener-test-{labels[LABEL][:8]}", labels=labels)
        assert _left(client, labels[LABEL]) == 2
    assert _left(client, labels[LABEL]) == 0


def test_containers_do_not_outlive_a_killed_process(client: DockerClient) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, _any_image(client)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        run = process.stdout.readline().strip()
        assert _left(client, run) == 1
        os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: _left(client, run) == 0)


def _any_image(client: DockerClient) -> str:
    for image in client.images.list():
        if image.tags:
            return str(image.tags[0])
    return pytest.skip("the engine has no image")


def _left(client: DockerClient, run: str) -> int:
    chosen: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={run}"}
    containers = client.containers.list(all=True, filters=chosen, ignore_removed=True)
    return len(containers) + len(client.networks.list(filters=chosen))
