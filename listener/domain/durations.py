"""The units of durations, each with its seconds, the largest first."""

from __future__ import annotations

from collections.abc import Mapping

_WHOLE = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}

# As settings and options have them.
WRITTEN: Mapping[str, float] = _WHOLE | {"ms": 0.001}
# As people are told them.
SPOKEN: Mapping[str, int] = {"min" if unit == "m" else unit: _WHOLE[unit] for unit in _WHOLE}
