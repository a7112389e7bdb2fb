"""Alerts, the dashboard and scrapes use what is served, and alerts lead to a runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from listener.adapters.http.metrics import Metrics
from listener.adapters.http.numbers import Numbers
from listener.domain.change import Stream
from listener.domain.due import Reason
from listener.domain.health import Wellness, Word
from listener.domain.pacing import BreakerState
from listener.domain.pulse import COVERAGE, Pulse, Reading, StreamReading, WakeMode
from listener.domain.refreshing import RotationCoverage
from listener.settings import Settings
from tests.runbooks import FOUR, ROOT, RUNBOOKS, headings_of
from tests.unit.test_deploy import manifest

ALERTS = RUNBOOKS / "alerts"
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy/grafana/listener.json").read_text(encoding="utf-8"))
_METRIC = re.compile(r"\blistener_[a-z_]+")
# What Grafana puts in for its variables, for a check of the queries.
_VARIABLES = {"$__rate_interval": "5m", "$job": ".+"}


def loaded(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


SPEC = loaded(ALERTS / "listener.prometheusrule.yaml")["spec"]
SENTRY = loaded(ALERTS / "sentry.yaml")
RULES = [rule for group in SPEC["groups"] for rule in group["rules"] if "alert" in rule]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_has_a_summary_and_links_to_its_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    address, _, name = rule["annotations"]["runbook_url"].rpartition("/")
    assert address == '{{ range query "listener:runbooks" }}{{ .Labels.address }}{{ end }}'
    assert headings_of(RUNBOOKS / name) == FOUR


def test_one_address_leads_to_the_runbooks_of_all_alerts() -> None:
    first = SPEC["groups"][0]["rules"][0]
    assert first["record"] == "listener:runbooks"
    assert SENTRY["runbooks"] == first["labels"]["address"]


def test_sentry_alerts_link_to_their_runbooks() -> None:
    assert len(SENTRY["alerts"]) >= 8
    for alert in SENTRY["alerts"]:
        assert headings_of(RUNBOOKS / alert["runbook"]) == FOUR, alert["name"]
        if alert["kind"] == "metric":
            assert {"dataset", "query", "aggregate", "threshold", "window"} <= alert.keys()


def test_metrics_of_the_alerts_are_served_and_listed() -> None:
    """Names and labels in the rules are those of /metrics, and each stands in the list."""
    used = {name for rule in RULES for name in _METRIC.findall(rule["expr"])}
    listed = set(_METRIC.findall((ALERTS / "README.md").read_text(encoding="utf-8")))
    assert used == listed
    served = everything_served()
    assert used <= {name for name, _ in served}
    for rule in RULES:
        for name, matchers in re.findall(r"(listener_[a-z_]+)\{([^}]*)\}", rule["expr"]):
            for label, wanted in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
                values = {labels.get(label) for found, labels in served if found == name}
                assert set(wanted.split("|")) <= values, (rule["alert"], label)


@pytest.mark.parametrize("case", ["fresh install", "feature off", "long quiet"])
def test_every_alert_is_tested_where_it_must_be_silent(case: str) -> None:
    tried = loaded(ROOT / "tests" / "alerts.test.yaml")["tests"]
    (found,) = [each for each in tried if each["name"] == case]
    silent = {each["alertname"] for each in found["alert_rule_test"] if not each["exp_alerts"]}
    assert silent == {rule["alert"] for rule in RULES}
    fed = {series["series"].partition("{")[0] for series in found["input_series"]}
    used = {name for rule in RULES for name in _METRIC.findall(rule["expr"])}
    assert used <= fed


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]


def test_dashboard_can_be_imported() -> None:
    # Grafana gives it an id of its own, and asks for what is under __inputs.
    assert DASHBOARD["id"] is None
    assert "__inputs" not in DASHBOARD
    assert DASHBOARD["schemaVersion"] >= 39
    assert {"title", "uid", "time", "refresh", "templating", "annotations"} <= DASHBOARD.keys()
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    datasource, *others = DASHBOARD["templating"]["list"]
    assert (datasource["type"], datasource["query"]) == ("datasource", "prometheus")
    chosen = {"type": "prometheus", "uid": f"${{{datasource['name']}}}"}
    for holder in (*others, *panels(), *(each for p in panels() for each in p["targets"])):
        assert holder["datasource"] == chosen
    kinds = {panel["type"] for panel in panels()}
    assert kinds <= {"stat", "timeseries", "state-timeline", "table"}


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (a, b)


def test_dashboard_shows_only_what_is_served() -> None:
    served = everything_served()
    names = {name for name, _ in served}
    for query in queries():
        used = set(re.findall(r"\b(?:listener|process)_[a-z_]+", query))
        assert used
        assert used <= names, query
        assert query.count('job=~"$job"') == len(re.findall(r"\{job", query)) >= 1
        labels = {label for name, found in served if name in used for label in found}
        grouped = {label for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(", ")}
        assert grouped <= labels | {"le"}, query


def test_dashboard_shows_the_same_facts_as_the_page() -> None:
    text = "\n".join(queries())
    for name in ("wellness", "cause", "following", "library_rows", "due_rows", "retrying_rows"):
        assert f"listener_{name}{{" in text
    for name in ("rotation_coverage", "rotation_coldest_timestamp_seconds", "parked_rows"):
        assert f"listener_{name}{{" in text
    for name in ("last_success_timestamp_seconds", "refresh_call_seconds_bucket"):
        assert f"listener_{name}{{" in text


def test_monitor_scrapes_the_pods_with_their_token() -> None:
    monitor = loaded(PROMETHEUS / "podmonitor.yaml")["spec"]
    deployment = manifest("Deployment")["spec"]
    assert monitor["selector"] == deployment["selector"]
    (container,) = deployment["template"]["spec"]["containers"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}
    secrets = [each["secretRef"]["name"] for each in container["envFrom"] if "secretRef" in each]
    credentials = endpoint["authorization"]["credentials"]
    assert [credentials["name"]] == secrets
    assert credentials["key"].lower() in Settings.model_fields


def test_no_label_conflicts_with_one_that_a_scrape_sets() -> None:
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
        claimed=dict.fromkeys(Stream, 1),
        captured=dict.fromkeys(Stream, 1),
        pulses=(pulse,),
        reading=reading,
        refreshed={"new": 1},
        uncaptured=set(),
        tokens=9,
        wellness=Wellness(Word.WELL, ()),
        successes={"rotation": datetime.now(UTC)},
        library=dict.fromkeys(COVERAGE, 1),
        due=dict.fromkeys(Reason, 1),
        rotation=RotationCoverage(9, 8, 7, 6, 0.75, 6, 5, datetime.now(UTC)),
    )
    lines = Metrics(lambda: numbers).text().decode().splitlines()
    found = [re.match(r"(\w+)(?:\{(.*)\})? ", line) for line in lines if not line.startswith("#")]
    return [
        (match[1], dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")))
        for match in found
        if match is not None
    ]


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="there is no promtool to try them"
)


def promtool(folder: Path, *arguments: str) -> None:
    tried = subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert tried.returncode == 0, tried.stdout + tried.stderr


@pytest.mark.timeout(120)
@needs_promtool
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    shutil.copy(ROOT / "tests" / "alerts.test.yaml", tmp_path)
    promtool(tmp_path, "test", "rules", "alerts.test.yaml")


@needs_promtool
def test_queries_of_the_dashboard_are_understood(tmp_path: Path) -> None:
    asked = list(queries())
    for name, value in _VARIABLES.items():
        asked = [query.replace(name, value) for query in asked]
    recorded = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(asked)]
    document = {"groups": [{"name": "dashboard", "rules": recorded}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    promtool(tmp_path, "check", "rules", "rules.yaml")


@needs_promtool
def test_scrape_is_understood() -> None:
    promtool(PROMETHEUS, "check", "config", "--syntax-only", "scrape.yaml")
