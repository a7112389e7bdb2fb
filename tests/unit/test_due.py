"""Due rows: grouped into pages of one kind each, and searched by shares that exist."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.domain.due import DueRow, Pages, Reason, Scope

SIZES = st.integers(1, 7)
# What a search finds in one go, as whether each row is a compilation.
FINDS = st.lists(st.lists(st.booleans(), max_size=20), max_size=8)


def numbered(finds: list[list[bool]]) -> list[list[DueRow]]:
    rows = iter(range(1, 1000))
    return [[DueRow(next(rows), Reason.NEVER, kind) for kind in find] for find in finds]


@given(FINDS, SIZES, SIZES)
def test_every_row_comes_out_once_in_order_on_a_page_of_its_kind(
    finds: list[list[bool]], size: int, compilation_size: int
) -> None:
    pages = Pages(size, compilation_size)
    found = numbered(finds)
    out = [page for rows in found for page in pages.add(rows)]
    out += pages.rest()
    for kind, most in ((False, size), (True, compilation_size)):
        of_kind = [page for page in out if page[0].compilation is kind]
        assert [row for page in of_kind for row in page] == [
            row for rows in found for row in rows if row.compilation is kind
        ]
        assert all(1 <= len(page) <= most for page in of_kind)


@given(FINDS, SIZES, SIZES)
def test_page_is_full_as_soon_as_it_can_be_and_only_the_rest_is_short(
    finds: list[list[bool]], size: int, compilation_size: int
) -> None:
    pages = Pages(size, compilation_size)
    sizes = {False: size, True: compilation_size}
    left = {False: 0, True: 0}
    for rows in numbered(finds):
        full = list(pages.add(rows))
        assert all(len(page) == sizes[page[0].compilation] for page in full)
        for row in rows:
            left[row.compilation] += 1
        for page in full:
            left[page[0].compilation] -= len(page)
        assert all(left[kind] < sizes[kind] for kind in sizes)
    rest = {page[0].compilation: len(page) for page in pages.rest()}
    assert rest == {kind: count for kind, count in left.items() if count}


def test_nothing_is_left_after_the_rest() -> None:
    pages = Pages(3, 3)
    assert not list(pages.add(numbered([[False, True]])[0]))
    assert len(list(pages.rest())) == 2
    assert not list(pages.rest())


@pytest.mark.parametrize(("partition", "partitions"), [(1, 1), (4, 4), (-1, 4), (0, 0), (0, -1)])
def test_share_that_does_not_exist_is_refused(partition: int, partitions: int) -> None:
    with pytest.raises(ValueError, match=f"partition {partition} must lie between 0 and"):
        Scope(partition=partition, partitions=partitions)


@pytest.mark.parametrize("partition", [0, 1, 2, 3])
def test_every_share_below_the_count_exists(partition: int) -> None:
    assert Scope(partition=partition, partitions=4).partition == partition
