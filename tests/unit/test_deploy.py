"""Manifests, units and alerts are complete and careful, and lead to a runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from listener import DISTRIBUTION
from listener.adapters.http.metrics import Metrics
from listener.adapters.http.numbers import Numbers
from listener.domain.change import Stream
from listener.domain.pacing import BreakerState
from listener.domain.pulse import Pulse, Reading, StreamReading, WakeMode
from listener.settings import Settings
from tests.commands import command_of
from tests.runbooks import FOUR, ROOT, RUNBOOKS, headings_of

KUBERNETES = ROOT / "deploy" / "kubernetes"
SYSTEMD = ROOT / "deploy" / "systemd"
ALERTS = RUNBOOKS / "alerts"
RULES = ALERTS / "listener.prometheusrule.yaml"
_METRIC = re.compile(r"\blistener_[a-z_]+")
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


@pytest.mark.parametrize("document", PODS, ids=lambda document: document["kind"])
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


def test_probes_ask_what_is_served_and_a_stop_has_its_time() -> None:
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


def test_budget_and_deployment_mean_the_same_pods() -> None:
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


def test_images_are_of_this_version() -> None:
    tags = [
        image["newTag"]
        for document in documents()
        if document["kind"] == "Kustomization"
        for image in document["images"]
    ]
    assert tags == [version(DISTRIBUTION)] * 2


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


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    every = [rule for group in document["spec"]["groups"] for rule in group["rules"]]
    return [rule for rule in every if "alert" in rule]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alert_says_what_it_is_and_leads_to_its_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    address, _, name = rule["annotations"]["runbook_url"].rpartition("/")
    assert address == '{{ range query "listener:runbooks" }}{{ .Labels.address }}{{ end }}'
    assert headings_of(RUNBOOKS / name) == FOUR


def test_one_address_leads_to_the_runbooks_of_all_alerts() -> None:
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    first = document["spec"]["groups"][0]["rules"][0]
    assert first["record"] == "listener:runbooks"
    sentry = yaml.safe_load((ALERTS / "sentry.yaml").read_text(encoding="utf-8"))
    assert sentry["runbooks"] == first["labels"]["address"]


def test_alerts_of_sentry_lead_to_their_runbooks() -> None:
    alerts = yaml.safe_load((ALERTS / "sentry.yaml").read_text(encoding="utf-8"))["alerts"]
    assert len(alerts) >= 8
    for alert in alerts:
        assert headings_of(RUNBOOKS / alert["runbook"]) == FOUR, alert["name"]
        if alert["kind"] == "metric":
            assert {"dataset", "query", "aggregate", "threshold", "window"} <= alert.keys()


def test_metrics_of_the_alerts_are_served_and_listed() -> None:
    """Names and labels in the rules are those of /metrics, and each stands in the list."""
    used = {name for rule in rules() for name in _METRIC.findall(rule["expr"])}
    listed = set(_METRIC.findall((ALERTS / "README.md").read_text(encoding="utf-8")))
    assert used == listed
    served = everything_served()
    assert used <= {name for name, _ in served}
    for rule in rules():
        for name, matchers in re.findall(r"(listener_[a-z_]+)\{([^}]*)\}", rule["expr"]):
            for label, wanted in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
                values = {labels.get(label) for found, labels in served if found == name}
                assert set(wanted.split("|")) <= values, (rule["alert"], label)


@pytest.mark.parametrize("case", ["fresh install", "feature off", "long quiet"])
def test_every_alert_is_tried_where_it_must_be_silent(case: str) -> None:
    tried = yaml.safe_load((ROOT / "tests" / "alerts.test.yaml").read_text(encoding="utf-8"))
    (found,) = [each for each in tried["tests"] if each["name"] == case]
    silent = {each["alertname"] for each in found["alert_rule_test"] if not each["exp_alerts"]}
    assert silent == {rule["alert"] for rule in rules()}
    fed = {series["series"].partition("{")[0] for series in found["input_series"]}
    used = {name for rule in rules() for name in _METRIC.findall(rule["expr"])}
    assert used <= fed


def test_no_label_is_one_that_a_scrape_sets_itself() -> None:
    # Prometheus would rename ours, to exported_job and the like.
    names = {name for _, labels in everything_served() for name in labels}
    assert {"stream", "kind"} <= names
    assert not names & {"job", "instance"}


def everything_served() -> list[tuple[str, dict[str, str]]]:
    """Return the name and the labels of every series that a daemon at work serves."""
    pulse = Pulse(
        stream=Stream.LIBRARY,
        wake_mode=WakeMode.POLL,
        breaker=BreakerState.OPEN,
        stalled=Settings.model_fields["linger"].default,
        looked=None,
        claimed=0,
        held=0,
    )
    waiting = [StreamReading(stream, 0, None, followed=True) for stream in Stream]
    reading = Reading(waiting, 0, Settings.model_fields["linger"].default)
    numbers = Numbers(
        ready=True,
        pulses=(pulse,),
        reading=reading,
        refreshed={"new": 1},
        uncaptured=set(),
        successes={"rotation": datetime.now(UTC)},
    )
    lines = Metrics(lambda: numbers).text().decode().splitlines()
    found = [re.match(r"(\w+)(?:\{(.*)\})? ", line) for line in lines if not line.startswith("#")]
    return [
        (match[1], dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")))
        for match in found
        if match is not None
    ]


@pytest.mark.timeout(120)
@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool to try them")
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(document["spec"]), encoding="utf-8")
    shutil.copy(ROOT / "tests" / "alerts.test.yaml", tmp_path)
    tried = subprocess.run(
        ["promtool", "test", "rules", "alerts.test.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tried.returncode == 0, tried.stdout + tried.stderr
