"""How fast camera and objects move, in percent of the picture's diagonal per second."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from pipeline.score.flow import FlowEstimator, FlowTrack
from pipeline.score.sampler import Clip
from pipeline.stage import Resources
from schemas.base import StrictModel
from schemas.scores import MotionScore
from schemas.status import Failure

_MOVING_PERCENT_PER_S = 0.5
_MOVING_SHARE = 0.05


class MotionStage:
    """Medians over time, so that a flash or a jump does not speak for the clip."""

    name: ClassVar[str] = "motion"
    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources()
    result: ClassVar[type[StrictModel]] = MotionScore

    def __init__(self, flow: FlowEstimator) -> None:
        self._flow = flow

    def setup(self) -> None:
        self._flow.setup()

    def process(self, clips: Sequence[Clip]) -> list[MotionScore | Failure]:
        return [self._score(clip) for clip in clips]

    def _score(self, clip: Clip) -> MotionScore | Failure:
        track = self._flow.track(clip)
        return track if isinstance(track, Failure) else motion_score(track)


def motion_score(track: FlowTrack) -> MotionScore:
    percent = 100.0
    speed_S = percent * np.linalg.norm(track.cells_SC2, axis=2).mean(axis=1)
    camera_S = percent * np.linalg.norm(track.global_SC2, axis=2).mean(axis=1)
    residual_SC = percent * track.residual_speeds
    # Flow is only so exact: on a fast pan a twentieth of the speed is no object.
    speed_SC = percent * np.linalg.norm(track.global_SC2, axis=2)
    allowed_SC = _MOVING_PERCENT_PER_S + _MOVING_SHARE * speed_SC
    return MotionScore(
        speed=float(np.median(speed_S)),
        speed_p90=float(np.percentile(speed_S, 90)),
        camera_speed=float(np.median(camera_S)),
        object_speed=float(np.median(residual_SC.mean(axis=1))),
        moving_area=float(np.median((residual_SC > allowed_SC).mean(axis=1))),
        num_pairs=len(track.dt_S),
    )
