"""Due rows: grouped into batches of one kind each, and searched by shares that exist."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.domain.due import Batches, DueRow, Reason, Scope

SIZES = st.integers(1, 7)
# What a search finds in one go, as whether each row is a compilation.
FINDS = st.lists(st.lists(st.booleans(), max_size=20), max_size=8)


def numbered(finds: list[list[bool]]) -> list[list[DueRow]]:
    rows = iter(range(1, 1000))
    return [[DueRow(next(rows), Reason.NEVER, kind) for kind in find] for find in finds]


@given(FINDS, SIZES, SIZES)
def test_every_row_comes_out_once_in_order_on_a_batch_of_its_kind(
    finds: list[list[bool]], size: int, compilation_size: int
) -> None:
    batches = Batches(size, compilation_size)
    found = numbered(finds)
    out = [batch for rows in found for batch in batches.add(rows)]
    out += batches.rest()
    for kind, most in ((False, size), (True, compilation_size)):
        of_kind = [batch for batch in out if batch[0].compilation is kind]
        assert [row for batch in of_kind for row in batch] == [
            row for rows in found for row in rows if row.compilation is kind
        ]
        assert all(1 <= len(batch) <= most for batch in of_kind)


@given(FINDS, SIZES, SIZES)
def test_batch_is_full_as_soon_as_it_can_be_and_only_the_rest_is_short(
    finds: list[list[bool]], size: int, compilation_size: int
) -> None:
    batches = Batches(size, compilation_size)
    sizes = {False: size, True: compilation_size}
    left = {False: 0, True: 0}
    for rows in numbered(finds):
        full = list(batches.add(rows))
        assert all(len(batch) == sizes[batch[0].compilation] for batch in full)
        for row in rows:
            left[row.compilation] += 1
        for batch in full:
            left[batch[0].compilation] -= len(batch)
        assert all(left[kind] < sizes[kind] for kind in sizes)
    rest = {batch[0].compilation: len(batch) for batch in batches.rest()}
    assert rest == {kind: count for kind, count in left.items() if count}


def test_nothing_is_left_after_the_rest() -> None:
    batches = Batches(3, 3)
    assert not list(batches.add(numbered([[False, True]])[0]))
    assert len(list(batches.rest())) == 2
    assert not list(batches.rest())


@pytest.mark.parametrize(("partition", "partitions"), [(1, 1), (4, 4), (-1, 4), (0, 0), (0, -1)])
def test_share_that_does_not_exist_is_refused(partition: int, partitions: int) -> None:
    with pytest.raises(ValueError, match=f"partition {partition} must lie between 0 and"):
        Scope(partition=partition, partitions=partitions)


@pytest.mark.parametrize("partition", [0, 1, 2, 3])
def test_every_share_below_the_count_exists(partition: int) -> None:
    assert Scope(partition=partition, partitions=4).partition == partition
