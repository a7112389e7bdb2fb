"""Manifests and units are complete and careful."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from listener import DISTRIBUTION
from listener.settings import Settings
from tests.commands import command_of
from tests.runbooks import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
SYSTEMD = ROOT / "deploy" / "systemd"
_SETTINGS = {name.upper() for name in Settings.model_fields}


def documents() -> Iterator[dict[str, Any]]:
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents() if document["kind"] == kind]
    return found


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    if document["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    pod: dict[str, Any] = spec["template"]["spec"]
    return pod


PODS = [
    document for document in documents() if document["kind"] in {"Deployment", "CronJob", "Job"}
]


SHARES = next(each for each in PODS if each["metadata"]["name"] == "listener-backfill")


@pytest.mark.parametrize("document", PODS, ids=lambda document: document["metadata"]["name"])
def test_pods_may_do_nothing_but_their_work(document: dict[str, Any]) -> None:
    pod = pod_of(document)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        # The command exists and accepts its arguments.
        name, *arguments = container["args"]
        with command_of(name).make_context(name, list(arguments)):
            pass


def test_user_of_the_pods_is_the_one_of_the_image() -> None:
    assert "USER 10001:10001" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_probes_use_served_routes_and_a_stop_has_enough_time() -> None:
    deployment = manifest("Deployment")
    pod = pod_of(deployment)
    (container,) = pod["containers"]
    paths = {name: container[name]["httpGet"]["path"] for name in container if "Probe" in name}
    assert paths == {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    settings = environment(KUBERNETES / "settings.env")
    assert settings["HTTP_BIND"].endswith(f":{container['ports'][0]['containerPort']}")
    stop = Settings.model_fields["shutdown_timeout"].default
    assert pod["terminationGracePeriodSeconds"] > 2 * stop.total_seconds()
    assert deployment["spec"]["replicas"] >= 2


def test_budget_and_deployment_select_the_same_pods() -> None:
    deployment = manifest("Deployment")["spec"]
    budget = manifest("PodDisruptionBudget")["spec"]
    assert budget["selector"] == deployment["selector"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert budget["minAvailable"] < deployment["replicas"]


def test_sweeps_do_not_pile_up() -> None:
    sweep = manifest("CronJob")["spec"]
    assert sweep["concurrencyPolicy"] == "Forbid"
    assert sweep["jobTemplate"]["spec"]["backoffLimit"] == 0


def test_each_pod_of_a_backfill_in_shares_gets_one_share() -> None:
    job = SHARES["spec"]
    (container,) = pod_of(SHARES)["containers"]
    given = {each["name"]: each for each in container["env"]}
    assert job["completionMode"] == "Indexed"
    # Shares that do not run at the same time only take longer.
    assert job["completions"] == job["parallelism"] == int(given["PARTITION_COUNT"]["value"])
    index = given["PARTITION_INDEX"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert given.keys() <= _SETTINGS


def test_backfill_in_shares_is_retried_and_is_not_selected_as_a_daemon() -> None:
    assert SHARES["spec"]["backoffLimitPerIndex"] >= 1
    assert pod_of(SHARES)["restartPolicy"] == "Never"
    daemons = manifest("Deployment")["spec"]["selector"]["matchLabels"]
    assert not daemons.items() <= SHARES["spec"]["template"]["metadata"]["labels"].items()
    assert "backfill-shares.yaml" not in (KUBERNETES / "kustomization.yaml").read_text("utf-8")


def test_backfill_in_shares_has_the_settings_of_the_daemon() -> None:
    (container,) = pod_of(SHARES)["containers"]
    (daemon,) = pod_of(manifest("Deployment"))["containers"]
    given = {each["name"]: each.get("value") for each in container["env"]}
    settings = environment(KUBERNETES / "settings.env")
    shared = given.keys() & settings.keys()
    assert shared == {"LIBRARY_METADATA_URL", "WXYC_SCHEMA_NAME"}
    assert all(given[name] == settings[name] for name in shared)
    secrets = [each for each in daemon["envFrom"] if "secretRef" in each]
    assert container["envFrom"] == secrets


def test_images_are_of_this_version() -> None:
    tags = [
        image["newTag"]
        for document in documents()
        if document["kind"] == "Kustomization"
        for image in document["images"]
    ]
    (container,) = pod_of(SHARES)["containers"]
    _, _, tag = container["image"].partition(":")
    assert [*tags, tag] == [version(DISTRIBUTION)] * 3


def test_changelog_has_this_version_with_its_date() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[([\d.]+)\] - \d{4}-\d\d-\d\d$", text, re.MULTILINE)
    assert released[0] == version(DISTRIBUTION)


def environment(path: Path) -> dict[str, str]:
    lines = [line.removeprefix("#") for line in path.read_text(encoding="utf-8").splitlines()]
    return dict(line.split("=", 1) for line in lines if re.match("[A-Z_]+=", line))


@pytest.mark.parametrize("path", [KUBERNETES / "settings.env", SYSTEMD / "listener.env"])
def test_settings_of_a_deployment_exist(path: Path) -> None:
    assert environment(path).keys() <= _SETTINGS


@pytest.mark.parametrize("path", sorted(SYSTEMD.glob("*.service")), ids=lambda path: path.name)
def test_units_run_what_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = re.search(r"^ExecStart=/opt/listener/bin/listener (.+)$", text, re.MULTILINE)
    assert found is not None
    name, *arguments = found[1].split()
    with command_of(name).make_context(name, arguments):
        pass
    # Only the daemon reports to systemd; a command is done when it ends.
    assert ("Type=notify\n" in text, "WatchdogSec=" in text) == (name == "run",) * 2
    assert "User=listener" in text
    assert "ProtectSystem=strict" in text
