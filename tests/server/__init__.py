"""The PostgreSQL that the tests work on, wherever it comes from."""

from tests.server.choice import Choice, UnfitImageError, choose
from tests.server.running import running

__all__ = ["Choice", "UnfitImageError", "choose", "running"]
