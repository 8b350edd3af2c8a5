"""Parts at the picture's own scale: which pixels a network is shown."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.score.parts import native_parts
from pipeline.score.sampler import Clip
from schemas.model_card import ModelCard
from tests.pipeline.score.clips import clip_of

CARD = ModelCard(
    kind="quality", model_id="m", interface_version=1, num_frames=12, height=64, width=64,
    resize="native_parts", config_sha256="",
)  # fmt: skip


def clip_with(luma_THW: np.ndarray) -> Clip:
    clip = clip_of([np.zeros((240, 320, 3), np.uint8)] * 2)
    return replace(clip, native_luma_THW=luma_THW)


def test_parts_are_the_pictures_own_pixels_from_all_frames() -> None:
    luma = np.random.default_rng(0).integers(0, 256, (5, 240, 320), dtype=np.uint8)
    parts = native_parts(clip_with(luma), CARD, 720)
    assert parts.shape == (1, 12, 64, 64, 3)
    # The first place is 0.3 of the room down and across, in the first of three of the five frames.
    top, left = round(0.3 * (240 - 64)), round(0.3 * (320 - 64))
    np.testing.assert_array_equal(parts[0, 0, :, :, 1], luma[0, top : top + 64, left : left + 64])
    np.testing.assert_array_equal(parts[0, 8, :, :, 2], luma[4, top : top + 64, left : left + 64])
    assert len({part.tobytes() for part in parts[0]}) == 12


@pytest.mark.parametrize("size_HW", [(40, 320), (240, 20), (3, 3)])
def test_pictures_smaller_than_a_part_are_mirrored(size_HW: tuple[int, int]) -> None:
    luma = np.random.default_rng(1).integers(1, 256, (1, *size_HW), dtype=np.uint8)
    parts = native_parts(clip_with(luma), CARD, 720)
    assert parts.min() >= 1  # no black filling that would look like an edge


def test_large_pictures_are_reduced_to_the_limit() -> None:
    stripes = np.zeros((1, 480, 640), np.uint8)
    stripes[:, :, ::2] = 255
    assert native_parts(clip_with(stripes), CARD, 480).std() > 100
    assert native_parts(clip_with(stripes), CARD, 240).std() < 2
