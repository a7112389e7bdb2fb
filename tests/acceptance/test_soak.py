"""Whatever breaks beside writers, every row ends up asked and answered as it is."""

from __future__ import annotations

import pytest

from tests.soak import soak


@pytest.mark.timeout(240)
def test_nothing_is_lost_whatever_breaks() -> None:
    committed, wrong = soak(15, seed=4, told=print)
    assert committed > 0
    assert wrong == []
