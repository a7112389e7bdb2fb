"""The latest answers as JSON: what this daemon handled, without asking the database."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from listener.app.report import dumped
from listener.app.state import DaemonState
from listener.domain.latest import LatestAnswer
from listener.engine.clock import now


def latest_json(state: DaemonState) -> bytes:
    """Return the latest answers of this daemon, and the streams that it follows."""
    moment, at = datetime.now(UTC), now()
    answers = state.workers.parts.latest if state.workers is not None else ()
    return dumped(
        {
            "at": moment,
            "follows": [pulse.stream for pulse in state.pulses()],
            "answers": [
                {"number": number} | _shown(each, moment - timedelta(seconds=at - each.at))
                for number, each in answers
            ],
        }
    ).encode()


def _shown(answer: LatestAnswer, at: datetime) -> dict[str, Any]:
    return asdict(answer) | {"at": at, "took": round(answer.took, 3)}
