"""The name of a process, and what it says of itself when it starts."""

from __future__ import annotations

import os
import re
import socket
from importlib.metadata import version

import pytest
from pydantic import AnyHttpUrl, SecretStr
from structlog.testing import capture_logs

from listener import DISTRIBUTION
from listener.app.start import announce, session_name
from listener.settings import Settings

VERSION = version(DISTRIBUTION)


def called(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)


def test_session_is_named_by_version_host_and_process(monkeypatch: pytest.MonkeyPatch) -> None:
    called(monkeypatch, "studio-1.wxyc.example")
    name = session_name("listener")
    assert re.fullmatch(rf"listener {VERSION} studio-1\[{os.getpid()}\] [0-9a-f]{{8}}", name)
    assert session_name("listener") != name


@pytest.mark.parametrize("host", ["x" * 80 + "-end", "h\u00f6rer\t1", ""])
@pytest.mark.parametrize("name", ["listener", "listener-backfill"])
def test_session_name_is_what_the_server_keeps(
    monkeypatch: pytest.MonkeyPatch, host: str, name: str
) -> None:
    called(monkeypatch, host)
    named = session_name(name)
    assert len(named.encode()) <= 63
    assert named.isascii()
    assert named.isprintable()
    assert named.startswith(f"{name} ")
    assert ("-end[" in named) == host.endswith("-end")


def test_start_logs_database_and_changed_settings_without_secrets() -> None:
    settings = Settings(
        database_url=SecretStr("postgresql://dj:geheim@db.example:5433/radio"),
        library_metadata_url=AnyHttpUrl("https://lml.example"),
        lml_api_key=SecretStr("geheim"),
        batch_size=7,
        gate_commit_sha="0123abc",
        gate_compare_url="https://dj:geheim@host.example/{base}...{head}?token=geheim",
    )
    with capture_logs() as logs:
        announce(settings)
    (line,) = logs
    assert "geheim" not in str(line)
    announced = {
        name: line[name] for name in ("event", "version", "pid", "database_host", "database")
    }
    assert announced == {
        "event": "starting",
        "version": VERSION,
        "pid": os.getpid(),
        "database_host": "db.example",
        "database": "radio",
    }
    assert (line["schema"], line["lml"]) == ("wxyc_schema", "https://lml.example/")
    assert line["settings"]["BATCH_SIZE"] == "7"
    assert "LML_TIMEOUT" not in line["settings"]
    assert "DATABASE_URL" not in line["settings"]
