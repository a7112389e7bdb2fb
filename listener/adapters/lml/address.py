"""Where LML's parts are, from the base URL that it is set to."""

from __future__ import annotations

API = "/api/v1"
HEALTH = "/health"


def root_of(base_url: str) -> str:
    """Return the address above API; the base URL may end in a slash or in API itself."""
    return base_url.rstrip("/").removesuffix(API)
