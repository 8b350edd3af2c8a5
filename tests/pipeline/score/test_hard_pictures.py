"""Every stage answers every picture: a result or a failure with its reason, never an exception."""

import numpy as np
import pytest

from pipeline.media.config import MediaLimits
from pipeline.score.aesthetic import AestheticStage
from pipeline.score.borders import BordersStage
from pipeline.score.camera import CameraStage
from pipeline.score.clarity import ClarityStage
from pipeline.score.config import ScoreConfig
from pipeline.score.crop import Cropper
from pipeline.score.exposure import ExposureStage
from pipeline.score.flow import FlowEstimator
from pipeline.score.motion import MotionStage
from pipeline.score.overlays import OverlaysStage
from pipeline.score.quality import QualityStage
from pipeline.score.sensitive import SensitiveStage
from pipeline.score.text import TextStage
from schemas.scores import BorderScore, CropScore, OverlayScore, TextScore
from schemas.status import Failure
from tests.pipeline.score.clips import Images, clip_of

CONFIG = ScoreConfig()


def noise(height: int, width: int, count: int) -> list[Images]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


HARD = {
    "one frame": noise(64, 80, 1),
    "two frames": noise(64, 80, 2),
    "2 x 2 pixels": noise(2, 2, 12),
    "odd size": noise(33, 47, 12),
    "a strip": noise(8, 900, 12),
    "a tall strip": noise(700, 10, 12),
    "noise": noise(200, 300, 20),
    "black": [np.zeros((120, 160, 3), np.uint8)] * 12,
    "white": [np.full((120, 160, 3), 255, np.uint8)] * 12,
}


@pytest.mark.parametrize("name", HARD)
def test_no_picture_is_too_hard(name: str) -> None:
    clip = clip_of(HARD[name])
    text, flow = TextStage(CONFIG.text), FlowEstimator(CONFIG.flow)
    borders, overlays = BordersStage(CONFIG.borders), OverlaysStage(CONFIG.overlays)
    whole = [stage.process([clip])[0] for stage in (borders, text, overlays)]
    bars, words, marks = whole
    assert isinstance(bars, BorderScore)
    assert isinstance(words, TextScore)
    assert isinstance(marks, OverlayScore)
    crop = Cropper(CONFIG.crop, CONFIG.overlays, text).crop(clip, bars, words, marks)
    assert isinstance(crop, CropScore)
    assert crop.kept_area > 0
    inside = clip.cropped(crop.box)
    stages = (
        MotionStage(flow),
        CameraStage(CONFIG.camera, flow),
        ClarityStage(CONFIG.clarity),
        QualityStage(CONFIG.quality, MediaLimits()),
        AestheticStage(),
        ExposureStage(),
        SensitiveStage(CONFIG.sensitive),
    )
    for stage in stages:
        stage.setup()
        (result,) = stage.process([inside])
        assert isinstance(result, stage.result | Failure)
        if isinstance(result, Failure):
            assert result.error_class in (
                "too_few_frames",
                "too_small",
                "no_texture",
                "flat_picture",
            )
