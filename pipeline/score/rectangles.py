"""The largest axis-parallel box inside a frame that overlaps none of some obstacles."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PixelBox:
    """Right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        return max(0, self.right - self.left) * max(0, self.bottom - self.top)


def largest_free_box(frame: PixelBox, obstacles: Sequence[PixelBox]) -> PixelBox | None:
    """None when the obstacles leave nothing. Among equals the first from the top left wins.

    An optimal box touches the frame or an obstacle with each side. So every pair of such left and
    right ends is tried, and between them the free gaps from top to bottom: O(n^3) for n obstacles.
    """
    lefts = {frame.left} | {o.right for o in obstacles if frame.left < o.right < frame.right}
    rights = {frame.right} | {o.left for o in obstacles if frame.left < o.left < frame.right}
    best: PixelBox | None = None
    for left in sorted(lefts):
        for right in sorted(r for r in rights if r > left):
            between = [o for o in obstacles if o.left < right and o.right > left and o.area > 0]
            for top, bottom in _gaps(frame, between):
                box = PixelBox(left, top, right, bottom)
                if box.area > (best.area if best else 0):
                    best = box
    return best


def _gaps(frame: PixelBox, obstacles: Sequence[PixelBox]) -> list[tuple[int, int]]:
    """Free runs of rows inside the frame, top first."""
    gaps = []
    top = frame.top
    for obstacle in sorted(obstacles, key=lambda o: o.top):
        if obstacle.top > top:
            gaps.append((top, min(obstacle.top, frame.bottom)))
        top = max(top, obstacle.bottom)
    if top < frame.bottom:
        gaps.append((top, frame.bottom))
    return [(start, end) for start, end in gaps if end > start]
