"""Several processes beside each other: shares as Kubernetes starts them, one budget, one LML."""

from __future__ import annotations

import subprocess
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
import yaml

from listener.simulator import Endpoint, Latency, Simulator
from tests.acceptance.conftest import Commands, Start, asked, capture_again, eventually
from tests.acceptance.test_daemon import add_releases, all_answered
from tests.acceptance.test_rotation import COLD, play, runs, unseen
from tests.catalogue import add_release
from tests.conftest import Connection
from tests.runbooks import ROOT

pytestmark = pytest.mark.timeout(120)

JOB = yaml.safe_load((ROOT / "deploy/kubernetes/backfill-shares.yaml").read_text("utf-8"))["spec"]
# The database and LML are those of the test.
OURS = {"LIBRARY_METADATA_URL", "WXYC_SCHEMA_NAME"}


def container() -> dict[str, Any]:
    (found,) = JOB["template"]["spec"]["containers"]
    return dict(found)


def environment(index: int) -> dict[str, str]:
    """Return what Kubernetes sets in the pod with this completion index."""
    return {
        each["name"]: each["value"] if "value" in each else str(index)
        for each in container()["env"]
        if each["name"] not in OURS
    }


def begin(listener: Commands, index: int) -> subprocess.Popen[str]:
    return listener.begin(*container()["args"], **environment(index))


def test_shares_beside_a_daemon_ask_about_every_row_once(
    quiet: Connection, start: Start, listener: Commands, simulator: Simulator
) -> None:
    daemon = start().following()
    # Its own look at every row is over, with nothing to find.
    daemon.wait_for("checked every row")
    add_releases(quiet, 400)
    capture_again(quiet)
    simulator.latency = Latency(fixed=timedelta(milliseconds=300))
    pods = [begin(listener, index) for index in range(JOB["completions"])]
    changed = add_release(quiet, "Stereolab")
    reports = [listener.finish(pod) for pod in pods]
    assert [each.code for each in reports] == [0] * len(pods)
    assert sum(each.report["scanned"] for each in reports) in {400, 401}
    eventually(lambda: all_answered(quiet))
    assert Counter(asked(simulator)).keys() >= {changed}
    assert max(Counter(asked(simulator)).values()) == 1


def test_killed_share_is_restarted_and_asks_about_the_rest(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    add_releases(quiet, 400)
    simulator.latency = Latency(fixed=timedelta(milliseconds=200))
    pods = [
        listener.begin(*container()["args"], **environment(index), BATCH_SIZE="20")
        for index in range(JOB["completions"])
    ]
    answered = "SELECT FROM listener.ledger WHERE library_id % 4 = 0"
    eventually(lambda: quiet.execute(answered).rowcount > 0, 60)
    pods[0].kill()
    assert listener.finish(pods[0]).code == -9
    again = listener.finish(begin(listener, 0))
    assert again.code == 0
    assert 0 < again.report["scanned"] < 100
    assert [listener.finish(pod).code for pod in pods[1:]] == [0] * 3
    assert all_answered(quiet)
    # And once more: there is nothing left of any share.
    assert [listener.finish(begin(listener, index)).report["scanned"] for index in (0, 3)] == [0, 0]


def test_each_share_stops_asking_an_lml_that_is_down(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    add_releases(quiet, 400)
    simulator.faults.add("status", endpoint="bulk")
    pods = [begin(listener, index) for index in range(JOB["completions"])]
    assert [listener.finish(pod).code for pod in pods] == [2] * len(pods)
    calls = simulator.calls.counts[Endpoint.BULK]
    # Five failures in a row, of which the first is of several tries.
    assert calls <= len(pods) * (5 + 3)
    simulator.faults.clear()
    pods = [begin(listener, index) for index in range(JOB["completions"])]
    assert [listener.finish(pod).code for pod in pods] == [0] * len(pods)
    assert all_answered(quiet)


def test_daemon_and_command_share_one_budget(
    db: Connection, start: Start, listener: Commands, simulator: Simulator
) -> None:
    # A second of Discogs' time each, so that they are seen to cost what they may.
    simulator.identities.mix = COLD
    play(db, count=40)
    unseen(db)
    walk = listener.begin("sweep", "--stream", "rotation", "--force")
    eventually(lambda: runs(db) == [None])
    start(ROTATION_WARM_AT="").following()
    play(db, first=41, count=40)
    spent = "SELECT count(DISTINCT holder), sum(cost) FROM listener.refresh"

    def both() -> bool:
        holders, cost = db.execute(spent).fetchone() or (0, 0)
        assert cost is None or int(str(cost)) <= 30
        return holders == 2

    eventually(both)
    # What is left is not enough for another cold identity: neither asks any more.
    eventually(lambda: int(str((db.execute(spent).fetchone() or (0, 0))[1])) > 20)
    calls = simulator.calls.counts[Endpoint.REFRESH]
    with pytest.raises(TimeoutError):
        simulator.calls.wait_for(calls + 4, "refresh", seconds=3)
    assert both()
    walk.terminate()
    assert listener.finish(walk).code == 143
