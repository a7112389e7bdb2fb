"""The README matches the code."""

from __future__ import annotations

from tests.readme import README, with_table


def test_settings_table_is_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_table(text) == text, "run `make settings-table`"
