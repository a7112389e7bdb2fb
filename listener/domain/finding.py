"""What one check of the doctor found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# Advice on what several checks may find.
MIGRATE = "run `listener migrate` as the owner of the backend's tables"
GRANT = "run `listener roles --role ROLE --apply` as the owner of the backend's tables"
# A policy for the role is not enough: nothing proves that it hides no row.
SEE_ALL_ROWS = "have an administrator run ALTER ROLE ... BYPASSRLS for the daemon's role"
DIRECT = "point DATABASE_URL at PostgreSQL itself, or at a pooler in session mode"
UNDO_MIGRATION = "see `listener runbook database-down`; undo the migration, or upgrade the listener"


class State(StrEnum):
    """Result of a check; a skipped one depends on another that failed."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, with advice unless the check passed."""

    check: str
    state: State
    finding: str
    advice: str = ""


def skipped(needed: str, *checks: str) -> list[Finding]:
    """Return checks that could not be made, because they require what is missing."""
    return [Finding(check, State.SKIP, f"requires {needed}") for check in checks]
