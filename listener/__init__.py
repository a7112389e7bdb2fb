"""Keeps a radio station's catalogue in step with its cross-catalogue identities."""

from pathlib import Path

# Its name for pip and importlib.metadata.
DISTRIBUTION = "wxyc-listener"

_PACKAGE = Path(__file__).parent


def shipped(folder: str) -> Path:
    """Return a folder that comes with the package: inside it, or beside it in a checkout."""
    installed = _PACKAGE / folder
    return installed if installed.is_dir() else _PACKAGE.parent / folder
