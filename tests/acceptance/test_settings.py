"""The command that shows what is in force."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from listener.settings import Settings
from tests.acceptance.conftest import WAIT_SECONDS

ADDRESSES = {
    "DATABASE_URL": "postgresql://u:geheim@db/x",
    "LIBRARY_METADATA_URL": "https://lml.example",
}


def settings(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return listener(folder, "settings", *arguments, **environment)


def listener(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "listener", *arguments],
        env={"PATH": os.defpath, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )


def test_values_are_shown_with_their_source(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LML_API_KEY=geheim-key\nLINGER=0.25\n")
    shown = settings(tmp_path, "--json", **ADDRESSES, SENTRY_DSN="https://geheim@s.example/1")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "geheim" not in shown.stdout
    entries = json.loads(shown.stdout)
    assert [entry["name"] for entry in entries] == [name.upper() for name in Settings.model_fields]
    values = {entry["name"]: (entry["value"], entry["from"]) for entry in entries}
    assert values["DATABASE_URL"] == ("postgresql://u:********@db/x", "environment")
    assert values["LML_API_KEY"] == ("********", ".env")
    assert values["SENTRY_DSN"] == ("********", "environment")
    assert values["LINGER"] == ("250ms", ".env")
    assert values["BATCH_SIZE"] == ("500", "default")
    assert values["GITHUB_TOKEN"] == (None, "default")


def test_screen_shows_each_setting_with_unit_source_and_meaning(tmp_path: Path) -> None:
    shown = settings(tmp_path, **ADDRESSES)
    assert shown.returncode == 0
    lines = [line.rstrip() for line in shown.stdout.splitlines()]
    named = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert named == [name.upper() for name in Settings.model_fields]
    assert "geheim" not in shown.stdout
    at = lines.index("BATCH_SIZE  500 rows  (default)")
    assert lines[at + 1] == f"    {Settings.model_fields['batch_size'].description}"


def test_only_changed_settings_are_shown(tmp_path: Path) -> None:
    # A value that is the default says nothing new, wherever it comes from.
    shown = settings(tmp_path, "--changed", "--json", **ADDRESSES, LINGER="1s", BATCH_SIZE="500")
    entries = json.loads(shown.stdout)
    assert {entry["name"]: entry["value"] for entry in entries} == {
        "DATABASE_URL": "postgresql://u:********@db/x",
        "LIBRARY_METADATA_URL": "https://lml.example/",
        "LINGER": "1s",
    }
    (linger,) = [entry for entry in entries if entry["name"] == "LINGER"]
    assert linger["meaning"] == Settings.model_fields["linger"].description


def test_invalid_settings_are_named_instead(tmp_path: Path) -> None:
    shown = settings(tmp_path, **ADDRESSES, BATCH_SIZE="0", LINGER="soon")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert [line.split()[1] for line in shown.stderr.splitlines()] == ["BATCH_SIZE", "LINGER"]


def test_parts_of_the_address_are_shown_without_the_password(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "DB_HOST=db.example\nDB_PORT=5433\nDB_NAME=x\nDB_USERNAME=u\nDB_PASSWORD=ge@heim\n"
    )
    lml = ADDRESSES["LIBRARY_METADATA_URL"]
    shown = settings(tmp_path, "--json", LIBRARY_METADATA_URL=lml)
    assert (shown.returncode, shown.stderr) == (0, "")
    values = {each["name"]: (each["value"], each["from"]) for each in json.loads(shown.stdout)}
    assert values["DATABASE_URL"] == ("postgresql://u:********@db.example:5433/x", "DB_*")
    assert values["DB_PASSWORD"] == ("********", ".env")
    assert "heim" not in shown.stdout


@pytest.mark.parametrize("command", ["settings", "backfill", "run"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://user:geheim@127.0.0.1:1080"),
        ("HTTPS_PROXY", "http://user:geheim@proxy.example:99999"),
        ("SSL_CERT_FILE", "/missing/certificates.pem"),
        ("SSLKEYLOGFILE", "/missing/keys"),
        ("DATABASE_URL", "postgresql://u:geheim%00@127.0.0.1:1/x"),
        ("DATABASE_URL", "postgresql://u@127.0.0.1:1/x?password=geheim%00"),
        ("DATABASE_URL", "postgresql://u@127.0.0.1:1/x?geheim"),
        ("DATABASE_URL", "postgresql://u:geheim%ff@127.0.0.1:1/x"),
        ("DATABASE_URL", "postgresql://u:geheim@a..b/x"),
        ("SENTRY_DSN", "https://geheim@127.0.0.1:99999/1"),
        ("HTTP_BIND", "a..b:8081"),
        ("HTTPS_PROXY", "http://user:geheim@proxy.example\n:3128"),
        ("GATE_COMPARE_URL", "http://[::1/{base}/{head}"),
        ("LIBRARY_METADATA_URL", "http://\U0001f600.invalid"),
        ("DATABASE_URL", "postgresql://u:geheim\nx@127.0.0.1:1/x"),
    ],
)
def test_unusable_variable_is_named(tmp_path: Path, command: str, name: str, value: str) -> None:
    ran = listener(tmp_path, command, **(ADDRESSES | {name: value}))
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"listener: {name}")
    assert len(ran.stderr.splitlines()) == 1
    assert "geheim" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    "name", ["SSLKEYLOGFILE", "SSL_CERT_FILE", "PGSERVICEFILE", "PGSSLROOTCERT", "PGSSLCERT"]
)
@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
def test_path_that_is_not_a_file_is_reported_and_not_opened(
    tmp_path: Path, name: str, kind: str
) -> None:
    ran = listener(tmp_path, "settings", **(ADDRESSES | {name: str(no_file(tmp_path, kind))}))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert len(ran.stderr.splitlines()) == 1
    assert name in ran.stderr
    assert "which is not a file" in ran.stderr


@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
def test_settings_file_that_is_not_a_file_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / ".env").symlink_to(no_file(tmp_path, kind))
    for command in ("settings", "status", "run"):
        ran = listener(tmp_path, command, **ADDRESSES)
        assert ran.returncode == 2
        assert ran.stderr == "listener: .env is not a file; remove it, or replace it with a file\n"


def test_address_with_a_certificate_that_is_not_a_file_is_named(tmp_path: Path) -> None:
    address = f"{ADDRESSES['DATABASE_URL']}?sslrootcert={no_file(tmp_path, 'fifo')}"
    ran = listener(tmp_path, "status", DATABASE_URL=address)
    assert ran.returncode == 2
    assert "sslrootcert is" in ran.stderr
    assert "geheim" not in ran.stderr


def no_file(folder: Path, kind: str) -> Path:
    if kind == "device":
        return Path("/dev/zero")
    path = folder / kind
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    return path


def test_null_device_is_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to(os.devnull)
    ran = settings(tmp_path, **ADDRESSES, SSLKEYLOGFILE=os.devnull)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_name_in_the_file_that_resembles_a_setting_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BATCHSIZE=7\nLML_KEY=geheim\nFLAVOUR=mint\nLINGER=1s\n")
    shown = settings(tmp_path, "--json", **ADDRESSES)
    assert shown.returncode == 0
    assert json.loads(shown.stdout)
    assert shown.stderr.splitlines() == [
        "listener: .env sets BATCHSIZE, which is not a setting; did you mean BATCH_SIZE?",
        "listener: .env sets LML_KEY, which is not a setting; did you mean LML_API_KEY?",
    ]
