"""Cut the items that are left to do into parts: by content alone, the same for every run."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Generic, TypeVar

from pipeline.engine.work import Part
from pipeline.tables import part_key

T = TypeVar("T")

_PARTS_AT_LEAST = 64  # where there are that many items: the last parts of a pass leave few idle
_SMALLEST_PART = 4  # items; below, starting a part shows


def cut_into_parts(
    items: Iterable[T],
    *,
    item_id: Callable[[T], str],
    max_items: int,
    group: Callable[[T], str] | None = None,
    max_group_items: int | None = None,
    num_bytes: Callable[[T], int] | None = None,
    max_bytes: int | None = None,
) -> list[Part]:
    """Parts of at most `max_items` items, in the order of (group, id).

    With `num_bytes` and `max_bytes` a part also ends before it grows over that size; an item that
    is larger makes a part of its own. With `group` (clips by their source), a group of up to
    `max_group_items` items stays in one part, so that its source is decoded once; a larger group
    is cut, and small groups share a part.
    Raises ValueError when two items have one id.
    """
    group_of = group or (lambda _: "")
    ordered = sorted(items, key=lambda item: (group_of(item), item_id(item)))
    for one, other in pairwise(ordered):
        if item_id(one) == item_id(other) and group_of(one) == group_of(other):
            raise ValueError(f"item {item_id(one)!r} was planned twice")
    largest = max_items if group is None else (max_group_items or max_items)
    sizes = _Sizes(num_bytes, max_bytes)
    parts: list[list[T]] = []
    current: list[T] = []
    for _, members in groupby(ordered, key=group_of):
        chunk = list(members)
        for piece in sizes.pieces(chunk, largest):
            together = [*current, *piece]
            if current and (len(together) > max_items or not sizes.fit(together)):
                parts.append(current)
                current = []
            current = [*current, *piece]
    if current:
        parts.append(current)
    return [
        Part(key=part_key(item_id(item) for item in members), items=tuple(members))
        for members in parts
    ]


def part_size(num_items: int, max_items: int) -> int:
    """Items in a part: `max_items` in a large pool, fewer where few parts would share the work."""
    return min(max_items, max(_SMALLEST_PART, num_items // _PARTS_AT_LEAST))


@dataclass(frozen=True, slots=True)
class _Sizes(Generic[T]):
    """The limit of bytes in a part, if there is one."""

    num_bytes: Callable[[T], int] | None
    max_bytes: int | None

    def fit(self, items: Iterable[T]) -> bool:
        if self.num_bytes is None or self.max_bytes is None:
            return True
        return sum(self.num_bytes(item) for item in items) <= self.max_bytes

    def pieces(self, items: Iterable[T], max_items: int) -> Iterator[list[T]]:
        """Runs of at most `max_items` items within the limit, at least one item each."""
        piece: list[T] = []
        for item in items:
            if piece and (len(piece) == max_items or not self.fit([*piece, item])):
                yield piece
                piece = []
            piece.append(item)
        if piece:
            yield piece
