"""Shows a clip to an exported DOVER network, in one more decode of its sample window."""

import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError, to_failure
from pipeline.media.video import open_video
from pipeline.media.window import sample_window, select_samples
from pipeline.onnx_model import OnnxModel, WeightsError
from pipeline.score.config import QualityConfig
from pipeline.score.dover_frames import ViewPlan, cut_fragments, plan_views
from pipeline.score.sampler import Clip, inside
from schemas.dover import (
    AESTHETIC_OUTPUT,
    NUM_RUNS,
    NUM_VIEWS,
    NUM_WHOLE_FRAMES,
    RUN_FRAMES,
    SIDE_PX,
    TECHNICAL_OUTPUT,
)
from schemas.status import Failure


@dataclass(frozen=True, slots=True)
class DoverResult:
    """What the branches say, without bounds; higher is better."""

    technical: float
    aesthetic: float


def is_dover(network: OnnxModel) -> bool:
    """By its outputs. Raises WeightsError where such a network takes other views."""
    if not {TECHNICAL_OUTPUT, AESTHETIC_OUTPUT} <= set(network.output_names):
        return False
    card = network.card
    found = (card.num_frames, card.height, card.width)
    wanted = (NUM_VIEWS, SIDE_PX, SIDE_PX)
    if found != wanted:
        raise WeightsError(
            f"{card.model_id}: takes {found} views, height, width; with the outputs "
            f"{TECHNICAL_OUTPUT} and {AESTHETIC_OUTPUT} it must be {wanted}"
        )
    return True


def run_dover(
    network: OnnxModel, clip: Clip, config: QualityConfig, limits: MediaLimits
) -> DoverResult | Failure:
    """Fails where the clip cannot be read again, and where the network gives no number."""
    try:
        views = dover_views(clip, config, limits)
    except MediaError as error:
        return to_failure(error)
    outputs = network.run(views[None])
    technical = float(outputs[TECHNICAL_OUTPUT][0])
    aesthetic = float(outputs[AESTHETIC_OUTPUT][0])
    if not np.isfinite([technical, aesthetic]).all():
        return Failure(
            error_class="not_finite",
            error=f"{network.card.model_id}: technical {technical}, aesthetic {aesthetic}",
        )
    return DoverResult(technical, aesthetic)


def dover_views(clip: Clip, config: QualityConfig, limits: MediaLimits) -> NDArray[np.uint8]:
    """128 x 224 x 224 x 3, as schemas/dover.py orders them, of a video. Raises MediaError."""
    window = sample_window(clip.row)
    # Each clip draws for itself, whatever else is scored with it.
    seed = zlib.crc32(clip.row.clip_id.encode(), config.dover_seed)
    if config.dover_sampling == "parity":
        seed = config.dover_seed
    plan = plan_views(window.num_frames, config.dover_sampling, seed)
    views = _Views(plan, config)
    with open_video(clip.row.source_uri, limits) as reader:
        frames = reader.frames(start=window.start, end_frame=window.end_frame)
        number = -1
        for number, frame in enumerate(select_samples(frames, window)):
            views.see(number, inside(frame.image[None], clip.region)[0])
    if number + 1 < window.num_frames:
        raise MediaError(
            "ended_early", f"{clip.row.source_uri}: {number + 1} of {window.num_frames} samples"
        )
    return views.images


class _Views:
    """Fills the views as frames pass, so that no frame has to be kept."""

    def __init__(self, plan: ViewPlan, config: QualityConfig) -> None:
        self._plan = plan
        self._sampling = config.dover_sampling
        self.images = np.zeros((NUM_VIEWS, SIDE_PX, SIDE_PX, 3), np.uint8)
        self._runs = self.images[: NUM_RUNS * RUN_FRAMES].reshape(
            NUM_RUNS, RUN_FRAMES, SIDE_PX, SIDE_PX, 3
        )
        self._whole = self.images[-NUM_WHOLE_FRAMES:]

    def see(self, number: int, frame_HWC: NDArray[np.uint8]) -> None:
        for run in range(NUM_RUNS):
            wanted = self._plan.runs_RT[run] == number
            if wanted.any():
                draw = self._plan.draw_RGG2[run]
                self._runs[run, wanted] = cut_fragments(frame_HWC, draw, self._sampling)
        wanted = self._plan.whole_T == number
        if wanted.any():
            self._whole[wanted] = squeezed(frame_HWC)


def squeezed(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """224 x 224, bilinear without antialiasing, as the published scores were made."""
    # OpenCV's 8-bit bilinear works in few bits; in floats it is exact.
    small = cv2.resize(
        frame_HWC.astype(np.float32), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR
    )
    return np.asarray(np.round(small), np.uint8)
