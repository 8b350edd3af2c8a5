import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.parts import cut_into_parts, part_size

Item = tuple[str, str]  # group, id


def _keys(items: list[Item], max_items: int, max_group_items: int) -> list[tuple[str, set[str]]]:
    parts = cut_into_parts(
        items,
        item_id=lambda item: item[1],
        group=lambda item: item[0],
        max_items=max_items,
        max_group_items=max_group_items,
    )
    return [(part.key, {item[1] for item in part.items}) for part in parts]


_ITEMS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 10_000).map(str)),
    unique_by=lambda item: item[1],
    max_size=60,
)


@given(items=_ITEMS, max_items=st.integers(1, 9), max_group_items=st.integers(1, 20))
def test_every_item_is_in_exactly_one_part_whatever_the_order(
    items: list[Item], max_items: int, max_group_items: int
) -> None:
    parts = _keys(items, max_items, max_group_items)
    assert sum(len(ids) for _, ids in parts) == len(items)
    assert set().union(*(ids for _, ids in parts)) == {item[1] for item in items}
    assert all(len(ids) <= max(max_items, max_group_items) for _, ids in parts)
    shuffled = random.Random(0).sample(items, len(items))
    assert _keys(shuffled, max_items, max_group_items) == parts


def test_a_group_that_fits_stays_together_and_small_groups_share_a_part() -> None:
    items = [("a", "1"), ("a", "2"), ("b", "3"), ("c", "4"), ("c", "5"), ("c", "6")]
    assert [ids for _, ids in _keys(items, 3, 3)] == [{"1", "2", "3"}, {"4", "5", "6"}]


def test_an_item_planned_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'1' was planned twice"):
        cut_into_parts(["1", "1"], item_id=str, max_items=4)


@given(
    sizes=st.lists(st.integers(0, 100), max_size=30),
    max_bytes=st.integers(1, 120),
    max_items=st.integers(1, 9),
)
def test_a_part_ends_before_it_grows_too_large(
    sizes: list[int], max_bytes: int, max_items: int
) -> None:
    parts = cut_into_parts(
        list(enumerate(sizes)),
        item_id=lambda item: f"{item[0]:02d}",
        max_items=max_items,
        num_bytes=lambda item: item[1],
        max_bytes=max_bytes,
    )
    assert [item for part in parts for item in part.items] == list(enumerate(sizes))
    for part in parts:
        assert len(part.items) == 1 or sum(size for _, size in part.items) <= max_bytes
        assert len(part.items) <= max_items


@given(num_items=st.integers(0, 10_000), max_items=st.integers(1, 64))
def test_a_small_pool_makes_many_small_parts_and_a_large_one_full_parts(
    num_items: int, max_items: int
) -> None:
    size = part_size(num_items, max_items)
    assert 1 <= size <= max_items
    num_parts = -(-num_items // size)
    assert size == max_items or num_parts >= min(64, num_items // 4)
    assert part_size(max_items * 64, max_items) == max_items
