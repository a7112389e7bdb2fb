"""The units of durations in seconds, largest first."""

from __future__ import annotations

from collections.abc import Mapping

_WHOLE = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}

# In settings and options.
WRITTEN: Mapping[str, float] = _WHOLE | {"ms": 0.001}
# In messages to people.
SPOKEN: Mapping[str, int] = {"min" if unit == "m" else unit: _WHOLE[unit] for unit in _WHOLE}
