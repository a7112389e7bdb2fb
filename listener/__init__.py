"""Keeps a radio station's catalogue and its cross-catalogue identities together."""

from pathlib import Path

# What pip and importlib.metadata know it by.
DISTRIBUTION = "wxyc-listener"

_PACKAGE = Path(__file__).parent


def shipped(folder: str) -> Path:
    """Return a folder that comes with the package: inside it, or beside it in a checkout."""
    installed = _PACKAGE / folder
    return installed if installed.is_dir() else _PACKAGE.parent / folder
