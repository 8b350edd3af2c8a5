"""Equal pictures give equal bytes, also where rows are padded with whatever memory held before."""

import numpy as np
import pytest

from pipeline.pack.encode import yuv_frames
from tests.media_files import scenes


@pytest.mark.parametrize("size_HW", [(48, 80), (336, 192), (224, 288)])
def test_the_encoder_sees_no_memory_that_was_never_written(size_HW: tuple[int, int]) -> None:
    """x264 reads the padding of chroma rows and decides by it."""
    for frame in yuv_frames(scenes([5, 4], *size_HW, seed=3)):
        for plane in frame.planes:
            rows = np.asarray(memoryview(plane)).reshape(-1, plane.line_size)
            assert not rows[:, plane.width :].any()
