"""Every status has one meaning."""

from __future__ import annotations

import pytest

from listener.domain.disposition import Disposition, dispose

TABLE = {
    Disposition.WAIT: [201, 204, 408, 409, 418, 425, 429, 451, 499, 501, 503, 521, 599],
    Disposition.INTERRUPTED: [502, 504],
    Disposition.HALT: [301, 302, 307, 308, 401, 403, 404, 405],
    Disposition.SPLIT: [400, 413, 422],
}


@pytest.mark.parametrize(
    ("status", "meaning"),
    [(status, meaning) for meaning, statuses in TABLE.items() for status in statuses],
)
@pytest.mark.parametrize("says_json", [True, False])
def test_status_means_the_same_whatever_its_body(
    status: int, meaning: Disposition, says_json: bool
) -> None:
    assert dispose(status, says_json=says_json) is meaning


def test_500_in_json_is_a_missing_token_of_lml_and_any_other_a_bug() -> None:
    assert dispose(500, says_json=True) is Disposition.HALT
    assert dispose(500, says_json=False) is Disposition.TRY_THEN_SPLIT


@pytest.mark.parametrize("status", range(300, 400))
def test_redirect_does_not_count_as_a_transient_fault(status: int) -> None:
    assert dispose(status, says_json=False) is Disposition.HALT
