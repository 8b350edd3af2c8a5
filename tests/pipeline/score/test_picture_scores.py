"""Exposure, the aesthetic proxy and the sensitive-content network."""

from unittest import mock

import cv2
import numpy as np
import pytest

from pipeline.score.aesthetic import AestheticStage, aesthetic_proxy
from pipeline.score.config import SensitiveConfig
from pipeline.score.exposure import ExposureStage
from pipeline.score.sensitive import SensitiveStage, network_input
from schemas.scores import AestheticScore, ExposureScore, SensitiveScore
from schemas.status import Failure
from tests.pipeline.score.clips import Images, clip_of, picture


def exposure(frames: list[Images]) -> ExposureScore:
    (result,) = ExposureStage().process([clip_of(frames)])
    assert isinstance(result, ExposureScore)
    return result


def flat(color: tuple[int, int, int]) -> Images:
    image = np.empty((240, 320, 3), np.uint8)
    image[:] = color
    return image


def test_flat_colors_have_the_exposure_that_they_are_made_of() -> None:
    gray = exposure([flat((100, 100, 100))] * 9)
    assert gray.mean_luma == pytest.approx(100, abs=1)
    assert (gray.luma_sd, gray.saturation, gray.flicker) == (0, 0, 0)
    assert exposure([flat((0, 0, 0))] * 9).dark_share == 1
    assert exposure([flat((255, 255, 255))] * 9).bright_share == 1
    assert exposure([flat((200, 100, 0))] * 9).saturation == 1


def test_flicker_is_not_a_slow_fade() -> None:
    fade = exposure([flat((60 + i, 60 + i, 60 + i)) for i in range(96)])
    strobe = exposure([flat((60 + 40 * (i // 3 % 2),) * 3) for i in range(96)])
    assert strobe.flicker > 5 * fade.flicker


def test_color_and_contrast_raise_the_proxy_and_clipping_lowers_it() -> None:
    image = picture(360, 640)
    gray = np.repeat(
        np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)[..., None], 3, axis=2
    )
    pale = np.asarray(128 + (image.astype(np.float32) - 128) * 0.2, np.uint8)
    burnt = np.clip(image.astype(np.int16) + 150, 0, 255).astype(np.uint8)
    assert aesthetic_proxy(image) > aesthetic_proxy(gray)
    assert aesthetic_proxy(image) > aesthetic_proxy(pale)
    assert aesthetic_proxy(image) > aesthetic_proxy(burnt)
    (result,) = AestheticStage().process([clip_of([flat((0, 0, 0))])])
    assert isinstance(result, AestheticScore)
    assert 0 <= result.aesthetic_proxy < 0.2


def test_the_network_sees_bgr_without_the_training_mean() -> None:
    values = network_input(flat((10, 20, 30)))
    assert values.shape == (224, 224, 3)
    assert values[0, 0].tolist() == [30 - 104, 20 - 117, 10 - 123]


def test_safe_photographs_are_called_safe() -> None:
    data = pytest.importorskip("skimage.data")
    stage = SensitiveStage(SensitiveConfig())
    stage.setup()
    clips = [clip_of([np.asarray(image)]) for image in (data.chelsea(), data.coffee())]
    for result in stage.process(clips):
        assert isinstance(result, SensitiveScore)
        assert result.mean_probability <= result.max_probability < 0.2


def test_a_probability_that_is_no_number_is_a_failure_and_not_safe() -> None:
    stage = SensitiveStage(SensitiveConfig())
    stage.setup()
    stage._session = mock.Mock(**{"run.return_value": [np.full((1, 2), np.nan, np.float32)]})
    stage._session.get_inputs.return_value = [mock.Mock()]
    (result,) = stage.process([clip_of([flat((9, 9, 9))])])
    assert isinstance(result, Failure)
    assert result.error_class == "not_finite"
