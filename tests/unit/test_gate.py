"""Whether an LML is new enough to be asked: the decision, and the settings it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from listener.domain.gate import (
    Compare,
    Facts,
    Open,
    ProbeRoutes,
    Relation,
    Route,
    Shut,
    decide,
)
from listener.settings import Settings, SettingsError, load_settings

REQUIRED = "0123abc"
RUNNING = "f" * 40
LIBRARY, ROTATION, MINT = Route


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (Facts(REQUIRED, RUNNING), Compare),
        (Facts(REQUIRED, RUNNING, relation=Relation.IDENTICAL), Open),
        (Facts(REQUIRED, RUNNING, relation=Relation.AHEAD), Open),
        (Facts(REQUIRED, RUNNING, relation=Relation.BEHIND), Shut),
        (Facts(REQUIRED, RUNNING, relation=Relation.DIVERGED), Shut),
        (Facts(REQUIRED, RUNNING, local=True), Compare),
        (Facts(REQUIRED, RUNNING, local=True, relation=Relation.BEHIND), Shut),
        (Facts(RUNNING, RUNNING), Open),
        (Facts(RUNNING, RUNNING.upper()), Open),
        (Facts(REQUIRED, REQUIRED + "0" * 33), Open),
        (Facts(REQUIRED + "0" * 33, REQUIRED), Open),
        (Facts(REQUIRED, None), ProbeRoutes),
        (Facts(REQUIRED, None, local=True), Open),
        (Facts(REQUIRED, None, statuses={LIBRARY: 422, ROTATION: 400}), Open),
        (Facts(REQUIRED, None, statuses={LIBRARY: 200}), Open),
        (Facts(REQUIRED, None, statuses={LIBRARY: 401, ROTATION: 503}), Open),
        (Facts(REQUIRED, None, statuses={LIBRARY: 404, ROTATION: 400}), Shut),
        (Facts(REQUIRED, None, statuses={LIBRARY: 422, ROTATION: 405}), Shut),
        (Facts(REQUIRED, None, statuses={LIBRARY: 422, ROTATION: 400, MINT: 404}), Shut),
        (Facts(REQUIRED, "dev"), Shut),
        (Facts(REQUIRED, "abcdef"), Shut),
        (Facts(REQUIRED, "../../../evil"), Shut),
        (Facts(REQUIRED, RUNNING + "\n"), Shut),
        (Facts(REQUIRED, "x" * 10_000), Shut),
    ],
)
def test_gate_decides(facts: Facts, kind: type[object]) -> None:
    assert isinstance(decide(facts), kind)


def test_comparison_goes_from_the_required_commit_to_the_running_one() -> None:
    assert decide(Facts(REQUIRED, RUNNING)) == Compare(REQUIRED, RUNNING)


def test_shut_gate_names_what_is_missing_and_nothing_endless() -> None:
    absent = decide(Facts(REQUIRED, None, statuses={LIBRARY: 422, ROTATION: 404}))
    assert isinstance(absent, Shut)
    assert "cache/refresh-for-identities (404)" in absent.reason
    assert "bulk" not in absent.reason
    endless = decide(Facts(REQUIRED, "\x1b" * 10_000))
    assert isinstance(endless, Shut)
    assert len(endless.reason) < 400
    assert "\x1b" not in endless.reason


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/wxyc")
    monkeypatch.setenv("LIBRARY_METADATA_URL", "https://lml.example")
    return monkeypatch


def refusal() -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(Settings)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("commit", ["0123abc", "A" * 40])
def test_commit_and_address_set_the_gate(env: pytest.MonkeyPatch, commit: str) -> None:
    env.setenv("GATE_COMMIT_SHA", commit)
    env.setenv("GATE_COMPARE_URL", "https://api.example/compare/{base}...{head}")
    assert load_settings(Settings).gate_commit_sha == commit


@pytest.mark.parametrize("commit", ["", "main", "0123ab", "a" * 41, "0123abc main"])
def test_invalid_commit_is_refused(env: pytest.MonkeyPatch, commit: str) -> None:
    env.setenv("GATE_COMMIT_SHA", commit)
    lines = refusal()
    assert any("7 to 40 hexadecimal digits" in line for line in lines)
    assert lines[0].startswith("GATE_COMMIT_SHA")


@pytest.mark.parametrize(
    "url", [None, "", "https://api.example/compare/{base}", "api.example/{base}/{head}"]
)
def test_commit_without_a_usable_compare_url_is_refused(
    env: pytest.MonkeyPatch, url: str | None
) -> None:
    env.setenv("GATE_COMMIT_SHA", "0123abc")
    if url is not None:
        env.setenv("GATE_COMPARE_URL", url)
    (line,) = refusal()
    assert line.startswith("GATE_COMPARE_URL")
    assert "compare/{base}...{head}" in line


def test_token_of_the_code_host_is_in_no_representation(env: pytest.MonkeyPatch) -> None:
    env.setenv("GITHUB_TOKEN", "token-sesame")
    assert "sesame" not in repr(load_settings(Settings))
