"""Equal pictures give equal bytes, also where rows are padded with whatever memory held before."""

from fractions import Fraction

import numpy as np
import pytest

from pipeline.pack.config import EncodeConfig
from pipeline.pack.encode import encode_mp4
from tests.media_files import scenes


@pytest.mark.parametrize("size_HW", [(48, 80), (336, 192), (224, 288)])
def test_an_encode_does_not_depend_on_what_memory_held_before(size_HW: tuple[int, int]) -> None:
    images = scenes([9, 8], *size_HW, seed=3)
    config = EncodeConfig()

    def encode(filling: int) -> bytes:
        dirt = [np.full(size, filling, np.uint8) for size in range(1000, 200_000, 1000)]
        del dirt  # freed, so that the encoder's buffers are cut from it
        return encode_mp4(images, size_HW, Fraction(24), len(images), config)

    assert len({encode(filling) for filling in range(0, 250, 25)}) == 1
