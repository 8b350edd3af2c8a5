import cv2
import numpy as np
import pytest

from pipeline.score.clarity import ClarityStage, cutoff_share
from pipeline.score.config import ClarityConfig
from schemas.scores import ClarityScore
from schemas.status import Failure
from tests.pipeline.score.clips import Images, clip_of, picture


def score(frame: Images) -> ClarityScore:
    (result,) = ClarityStage(ClarityConfig()).process([clip_of([frame] * 3)])
    assert isinstance(result, ClarityScore)
    return result


def blurred(image: Images, sigma_px: float) -> Images:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.uint8)


def test_more_blur_is_less_sharp_step_by_step() -> None:
    sharp = picture(540, 960)
    values = [score(sharp).sharpness]
    for sigma in (0.7, 1.2, 2.0, 3.0, 5.0):
        values.append(score(blurred(sharp, sigma)).sharpness)
    assert values == sorted(values, reverse=True)
    assert values[0] - values[-1] > 1.0


def test_contrast_alone_hardly_changes_sharpness() -> None:
    sharp = picture(540, 960)
    pale = np.asarray(128 + (sharp.astype(np.float32) - 128) * 0.5, np.uint8)
    plain, reduced = score(sharp), score(pale)
    assert reduced.laplacian_variance < 0.3 * plain.laplacian_variance
    assert abs(plain.sharpness - reduced.sharpness) < 0.8


def test_a_sharp_subject_before_a_blurred_background_stays_sharp() -> None:
    sharp = picture(540, 960)
    background = blurred(sharp, 6)
    mixed = background.copy()
    mixed[150:400, 300:660] = sharp[150:400, 300:660]
    low, middle, high = (score(image).sharpness for image in (background, mixed, sharp))
    assert middle - low > 2 * (high - middle)


@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0])
def test_an_enlarged_picture_shows_the_height_that_it_came_from(factor: float) -> None:
    rng = np.random.default_rng(0)
    # The spectrum of a natural picture, right up to its own pixel grid.
    small = picture(round(720 / factor), round(1280 / factor)).astype(np.float32)
    small += rng.normal(0, 3, small.shape)
    enlarged = cv2.resize(small, (1280, 720), interpolation=cv2.INTER_CUBIC)
    share = cutoff_share(np.clip(enlarged[..., 1], 0, 255).astype(np.uint8))
    assert share == pytest.approx(1 / factor, rel=0.2)


def test_a_flat_picture_fails_with_its_reason() -> None:
    flat = np.full((240, 320, 3), 77, np.uint8)
    (result,) = ClarityStage(ClarityConfig()).process([clip_of([flat] * 2)])
    assert isinstance(result, Failure)
    assert result.error_class == "flat_picture"
