"""Cut the items that are left to do into parts: by content alone, the same for every run."""

from collections.abc import Callable, Iterable
from itertools import groupby, pairwise
from typing import TypeVar

from pipeline.engine.work import Part
from pipeline.tables import part_key

T = TypeVar("T")


def cut_into_parts(
    items: Iterable[T],
    *,
    item_id: Callable[[T], str],
    max_items: int,
    group: Callable[[T], str] | None = None,
    max_group_items: int | None = None,
) -> list[Part]:
    """Parts of at most `max_items` items, in the order of (group, id).

    With `group` (clips by their source), a group of up to `max_group_items` items stays in one
    part, so that its source is decoded once; a larger group is cut, and small groups share a part.
    Raises ValueError when two items have one id.
    """
    group_of = group or (lambda _: "")
    ordered = sorted(items, key=lambda item: (group_of(item), item_id(item)))
    for one, other in pairwise(ordered):
        if item_id(one) == item_id(other) and group_of(one) == group_of(other):
            raise ValueError(f"item {item_id(one)!r} was planned twice")
    largest = max_items if group is None else (max_group_items or max_items)
    parts: list[list[T]] = []
    current: list[T] = []
    for _, members in groupby(ordered, key=group_of):
        chunk = list(members)
        pieces = [chunk[i : i + largest] for i in range(0, len(chunk), largest)]
        for piece in pieces:
            if current and len(current) + len(piece) > max_items:
                parts.append(current)
                current = []
            current = [*current, *piece]
    if current:
        parts.append(current)
    return [
        Part(key=part_key(item_id(item) for item in members), items=tuple(members))
        for members in parts
    ]
