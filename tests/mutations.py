"""Replies of LML with a few parts of them changed at random."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, -(10**30), 2**31, -(2**31) - 1, 10**400]),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from(["\x00", "a\x00b", "x" * 3000, "single_artist", "boxset", "7"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)


@st.composite
def mutated(draw: st.DrawFn, sound: object) -> object:
    """Replace, remove or repeat up to four parts of a reply, at any depth."""
    reply: Any = sound
    for _ in range(draw(st.integers(1, 4))):
        reply = json.loads(json.dumps(reply))
        path = draw(st.sampled_from(_paths(reply)))
        if not path:
            reply = draw(st.sampled_from([reply, reply, reply, None, [], 7, "x", {}]))
            continue
        parent = reply
        for key in path[:-1]:
            parent = parent[key]
        change = draw(st.sampled_from(("replace", "remove", "repeat")))
        if change == "repeat" and isinstance(parent, list):
            parent.append(parent[path[-1]])
        elif change == "remove":
            del parent[path[-1]]
        else:
            parent[path[-1]] = draw(ODD)
    return reply


def _paths(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(found for key, part in inner for found in _paths(part, (*path, key)))]
