import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.score.rectangles import PixelBox, largest_free_box

WIDTH, HEIGHT = 13, 9
FRAME = PixelBox(0, 0, WIDTH, HEIGHT)


@st.composite
def boxes(draw: st.DrawFn) -> PixelBox:
    left = draw(st.integers(-2, WIDTH))
    top = draw(st.integers(-2, HEIGHT))
    return PixelBox(left, top, left + draw(st.integers(0, 8)), top + draw(st.integers(0, 8)))


def brute_force_area(obstacles: list[PixelBox]) -> int:
    """The largest area over all boxes of the frame, by a summed-area table."""
    blocked = np.zeros((HEIGHT, WIDTH), int)
    for box in obstacles:
        blocked[max(0, box.top) : max(0, box.bottom), max(0, box.left) : max(0, box.right)] = 1
    total = np.pad(blocked.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    best = 0
    for top in range(HEIGHT):
        for bottom in range(top + 1, HEIGHT + 1):
            for left in range(WIDTH):
                for right in range(left + 1, WIDTH + 1):
                    inside = (
                        total[bottom, right] - total[top, right]
                        - total[bottom, left] + total[top, left]
                    )  # fmt: skip
                    if inside == 0:
                        best = max(best, (bottom - top) * (right - left))
    return best


@settings(max_examples=60, deadline=None)
@given(st.lists(boxes(), max_size=5))
def test_the_box_is_free_and_as_large_as_brute_force_finds(obstacles: list[PixelBox]) -> None:
    best = largest_free_box(FRAME, obstacles)
    assert (best.area if best else 0) == brute_force_area(obstacles)
    if best is None:
        return
    assert 0 <= best.left < best.right <= WIDTH
    assert 0 <= best.top < best.bottom <= HEIGHT
    for box in obstacles:
        width = min(best.right, box.right) - max(best.left, box.left)
        height = min(best.bottom, box.bottom) - max(best.top, box.top)
        assert width <= 0 or height <= 0 or box.area == 0
