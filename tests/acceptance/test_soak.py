"""Whatever breaks beside writers, every row ends up asked and answered as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import Daemons, soak


@pytest.mark.timeout(240)
def test_nothing_is_lost_whatever_breaks() -> None:
    committed, wrong = soak(15, seed=4, report=print)
    assert committed > 0
    assert wrong == []


def test_a_daemon_that_ended_by_itself_is_noticed_before_it_is_killed(tmp_path: Path) -> None:
    daemons = Daemons("no address", "no address", tmp_path)
    daemons._processes[0].wait(10)  # noqa: SLF001 - nothing else shows that it has ended
    with pytest.raises(AssertionError, match="daemon 0 had ended by itself with 2"):
        daemons.kill(0)
    for number in range(2):
        daemons._processes[number].wait(10)  # noqa: SLF001
