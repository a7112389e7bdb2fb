"""The distribution: built, installed into an empty environment, and at work there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)

_ROOT = Path(__file__).parents[2]
# What `make` sets up to make the environment with.
_UV = _ROOT / ".cache" / "uv-venv" / "bin" / "uv"


def _run(*command: str | Path, **environment: str) -> str:
    ran = subprocess.run(
        command,
        env={**os.environ, **environment},  # noqa: TID251 - what pip and uv need to reach an index
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this checkout."""
    if not _UV.exists():
        pytest.skip("no uv: this environment was not made by make")
    folder = tmp_path_factory.mktemp("dist")
    _run(_UV, "build", "--quiet", "--wheel", "--out-dir", folder, _ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the demo makes its own folder; short, because a socket lies in it."""
    folder = Path(tempfile.mkdtemp(prefix="lw-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _interpreter(version: str) -> Path | None:
    """Return a Python of this version that is present and runs."""
    candidates = [Path(sys.executable)] if version in sys.executable else []
    if found := shutil.which(f"python{version}"):
        candidates.append(Path(found))
    candidates += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    for candidate in candidates:
        asked = subprocess.run([candidate, "-c", ""], capture_output=True, check=False)
        if asked.returncode == 0:
            return candidate
    return None


def test_wheel_has_a_name_of_its_own_its_statements_and_its_types(wheel: Path) -> None:
    assert wheel.name.startswith("wxyc_listener-")
    names = zipfile.ZipFile(wheel).namelist()
    assert "listener/py.typed" in names
    assert "listener/sql/triggers/library.sql" in names
    assert "listener/runbooks/alerts/listener.prometheusrule.yaml" in names
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_installed_wheel_runs_the_demo(wheel: Path, folder: Path, version: str) -> None:
    python = _interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version}")
    _run(_UV, "venv", "--quiet", "--no-project", "--python", python, folder / "venv")
    installed = folder / "venv" / "bin"
    _run(_UV, "pip", "install", "--quiet", "--python", installed / "python", f"{wheel}[demo]")

    assert _run(installed / "listener", "--version").startswith("listener, version ")
    assert _run(installed / "listener", "runbook", "lml-down").startswith("# LML is down\n")
    printed = _run(installed / "listener", "demo", "--seconds", "20", TMPDIR=str(folder))

    assert "nothing lost" in printed
    assert printed.endswith("Stopped everything, removed the folder.\n")
