"""The image, built from this checkout, on a network with PostgreSQL and the simulator."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from docker.models.containers import Container

from listener.demo.postgres import create_backend
from tests.acceptance.conftest import eventually
from tests.conftest import BACKEND
from tests.server.choice import wanted_image
from tests.server.containers import LABEL, engine, removed_afterwards
from tests.server.running import postgres_container

IMAGE = "listener-under-test"
TOKEN = "secret-token-of-the-tests"
# Longer than two looks of the health check, each after its interval and cut off after its time.
HEALTH_SECONDS = 60
STOP_SECONDS = 15
_LML_PORT = 8081
_ALL_SINGLE = ["--host", "0.0.0.0", "--port", str(_LML_PORT), "--all-single", "--api-key", TOKEN]  # noqa: S104


@pytest.fixture(scope="session")
def client() -> Iterator[DockerClient]:
    """Talk to the container engine."""
    with engine() as found:
        if found is None:
            pytest.skip("no container engine answers")
        yield found


@pytest.fixture(scope="session")
def image(client: DockerClient) -> str:
    """Build the images; return the name of the daemon's."""
    done = subprocess.run(
        ["make", "--no-print-directory", "image", f"IMAGE={IMAGE}", "ARGS="],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return IMAGE


@dataclass(frozen=True)
class Running:
    """A container that was started, seen from outside."""

    container: Container

    @property
    def health(self) -> str:
        """What the engine holds of it: starting, healthy or unhealthy."""
        self.container.reload()
        return str(self.container.attrs["State"]["Health"]["Status"])

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it logged."""
        lines = self.container.logs().decode().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def logged(self, event: str, **fields: object) -> bool:
        """Return whether it logged an event with these fields."""
        return any(
            entry.get("event") == event and fields.items() <= entry.items() for entry in self.events
        )

    def wait_for(self, event: str, **fields: object) -> None:
        """Wait until it has logged an event with these fields."""
        try:
            eventually(lambda: self.logged(event, **fields))
        except AssertionError:
            raise AssertionError(f"not logged: {event} in {self.container.logs()!r}") from None

    def wait_until(self, health: str) -> None:
        """Wait until it is healthy, or is not."""
        eventually(lambda: self.health == health, HEALTH_SECONDS)

    def stop(self) -> int:
        """Send SIGTERM, and SIGKILL if that does not end it; return the exit code."""
        self.container.stop(timeout=STOP_SECONDS)
        return int(self.container.wait()["StatusCode"])


@dataclass(frozen=True)
class Stage:
    """A network with PostgreSQL and the simulator on it, and what is run there."""

    client: DockerClient
    image: str
    labels: dict[str, str]
    network: str
    postgres: Container
    password: str

    @property
    def dsn(self) -> str:
        """Where the database is, seen from here; another port after a restart."""
        self.postgres.reload()
        published = self.postgres.ports["5432/tcp"]
        assert published
        address = f"127.0.0.1:{published[0]['HostPort']}"
        return f"postgresql://postgres:{self.password}@{address}/postgres"

    def start(self, *command: str, **settings: str) -> Running:
        """Start the image as it should be run: nothing to write to, no privileges."""
        container = self.client.containers.run(
            self.image,
            list(command) or None,
            detach=True,
            environment={
                "DATABASE_URL": f"postgresql://postgres:{self.password}@postgres/postgres",
                "LIBRARY_METADATA_URL": f"http://{self.network}-lml:{_LML_PORT}",
                "LML_API_KEY": TOKEN,
                **settings,
            },
            labels=self.labels,
            network=self.network,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
        )
        return Running(container)

    def run(self, *command: str, **settings: str) -> tuple[int, str]:
        """Run a command to its end; return exit code and what it printed."""
        running = self.start(*command, **settings)
        code = int(running.container.wait()["StatusCode"])
        return code, running.container.logs().decode()


@pytest.fixture
def stage(client: DockerClient, image: str) -> Iterator[Stage]:
    """Set up a network with a backend, the listener installed, and the simulator."""
    with removed_afterwards() as labels:
        network = f"listener-test-{labels[LABEL][:8]}"
        client.networks.create(network, labels=labels)
        client.containers.run(
            f"{image}-demo",
            _ALL_SINGLE,
            entrypoint=["python", "-m", "listener.simulator"],
            detach=True,
            name=f"{network}-lml",
            labels=labels,
            network=network,
        )
        with postgres_container(wanted_image(), labels) as server:
            postgres = server.get_wrapped_container()
            client.networks.get(network).connect(postgres, aliases=["postgres"])
            stage = Stage(client, image, labels, network, postgres, server.password)
            create_backend(stage.dsn, BACKEND, with_triggers=True)
            code, printed = stage.run("migrate")
            assert code == 0, printed
            yield stage
