"""Camera movement of a clip: its class with a calibrated confidence, and the speeds behind it.

The classes follow the recipe's list (HunyuanVideo, arXiv 2412.03603), which gives no definitions.
Ours: pan = the camera translates, tilt = it rotates, around = it moves on an arc about what it
looks at, zoom = lens or distance. Directions are the camera's: camera to the right, content to the
left. A small network names the class from the motion of the picture's parts; speeds, roll, zoom
and shake are measured by geometry, which the network only helps to split into translation and
rotation. A distant or flat scene shows no difference between the two: expect low confidence there.
"""

import json
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.onnx_model import NotFiniteError, OnnxModel, WeightsError, require_finite
from pipeline.score.camera_features import step_features
from pipeline.score.camera_geometry import geometric_score, image_speed
from pipeline.score.config import GEOMETRY, CameraConfig
from pipeline.score.flow import FlowEstimator, FlowTrack
from pipeline.score.sampler import Clip
from pipeline.stage import Resources
from schemas.base import StrictModel
from schemas.camera_network import CAMERA_CLASSES, CAMERA_INPUT, THRESHOLDS_KEY
from schemas.scores import CameraMovement, CameraScore
from schemas.status import Failure

_MIN_STEPS = 4  # between sampled frames; fewer tell no movement from shake
_MAX_STEP_S = 0.25  # between sampled frames
_UNSEEN_CONFIDENCE = 0.6  # of a static shot that the network calls something else
_GEOMETRY_WEIGHT = 0.05  # of the split by geometry, where the network sees neither
# Film usage: what turns or travels sideways pans, what turns or travels up or down tilts.
_FILM_NAMES: Mapping[CameraMovement, CameraMovement] = {
    "tilt_left": "pan_left",
    "tilt_right": "pan_right",
    "pan_up": "tilt_up",
    "pan_down": "tilt_down",
}


class CameraStage:
    name: ClassVar[str] = "camera"
    version: ClassVar[int] = 3
    resources: ClassVar[Resources] = Resources()
    result: ClassVar[type[StrictModel]] = CameraScore

    def __init__(self, config: CameraConfig, flow: FlowEstimator) -> None:
        self._config = config
        self._flow = flow
        self._network: CameraNetwork | None = None

    def setup(self) -> None:
        """Load the network, unless geometry is configured. Raises WeightsError."""
        self._flow.setup()
        if self._config.model != GEOMETRY and self._network is None:
            self._network = CameraNetwork(self._config.model)

    def process(self, clips: Sequence[Clip]) -> list[CameraScore | Failure]:
        return [self._score(clip) for clip in clips]

    def _score(self, clip: Clip) -> CameraScore | Failure:
        track = self._flow.track(clip)
        if isinstance(track, Failure):
            return track
        score = geometric_score(track, self._config)
        if self._network is not None:
            try:
                score = learned_score(track, score, self._network, self._config)
            except NotFiniteError as error:
                return Failure(error_class="not_finite", error=str(error))
        return score


class CameraNetwork:
    """The loaded network and the confidence from which on each class may be relied on."""

    def __init__(self, name: str) -> None:
        self._model = OnnxModel(name, kind="camera_movement")
        self.model_id = self._model.card.model_id
        written = self._model.metadata.get(THRESHOLDS_KEY)
        if written is None:
            raise WeightsError(f"{name}: no {THRESHOLDS_KEY!r} in its metadata; export it again")
        self.thresholds: dict[CameraMovement, float] = dict(
            zip(CAMERA_CLASSES, json.loads(written), strict=True)
        )

    def run(self, track: FlowTrack) -> tuple[NDArray[np.float64], float]:
        """Probability of each class and of mixed motion; and that a zoom is one by distance.

        Raises NotFiniteError.
        """
        outputs = self._model.run_inputs({CAMERA_INPUT: step_features(track)[None]})
        require_finite(self.model_id, outputs)
        probability = outputs["probability"][0].astype(np.float64)
        return probability / probability.sum(), float(outputs["dolly"][0])


def learned_score(
    track: FlowTrack, geometric: CameraScore, network: CameraNetwork, config: CameraConfig
) -> CameraScore:
    """The network's class with the speeds of `geometric`."""
    values: dict[str, object] = {"model_id": network.model_id, "movement": None, "confidence": 0.0}
    if len(track.dt_S) < _MIN_STEPS:
        return geometric.model_copy(update=values)
    probability, dolly = network.run(track)
    of_class = dict(zip(CAMERA_CLASSES, probability, strict=False))
    thresholds = network.thresholds
    if config.naming == "film":
        of_class, thresholds = _in_film_names(of_class, thresholds)
    best = max(of_class, key=lambda name: of_class[name])
    named = best if of_class[best] > probability[-1] else None
    if named != "static_shot" and _is_unseen(track, geometric, config):
        values |= {
            "movement": "static_shot", "confidence": _UNSEEN_CONFIDENCE, "is_sure": False,
        }  # fmt: skip
    elif named is not None:
        values["movement"], values["confidence"] = best, float(min(1.0, of_class[best]))
        values["is_sure"] = bool(of_class[best] >= thresholds[best]) and _is_dense(track)
        if best in ("zoom_in", "zoom_out"):
            values["dolly"] = dolly
    return geometric.model_copy(update=values | _split(geometric, probability))


def _is_unseen(track: FlowTrack, geometric: CameraScore, config: CameraConfig) -> bool:
    """Whether the camera moves so little that a viewer calls it still."""
    return (
        _is_dense(track)
        and image_speed(track, geometric) < config.unseen_speed
        and geometric.jitter <= config.unseen_jitter
    )


def _is_dense(track: FlowTrack) -> bool:
    """Whether the frames are close enough in time to show shake, as all training clips were."""
    return float(np.median(track.dt_S)) <= _MAX_STEP_S


def _in_film_names(
    of_class: dict[CameraMovement, float], thresholds: Mapping[CameraMovement, float]
) -> tuple[dict[CameraMovement, float], dict[CameraMovement, float]]:
    """The probabilities of merged names add up; of their thresholds the higher one holds."""
    merged: dict[CameraMovement, float] = {}
    limits: dict[CameraMovement, float] = {}
    for name, value in of_class.items():
        film_name = _FILM_NAMES.get(name, name)
        merged[film_name] = merged.get(film_name, 0.0) + value
        limits[film_name] = max(limits.get(film_name, 0.0), thresholds[name])
    return merged, limits


def _split(geometric: CameraScore, probability: NDArray[np.float64]) -> dict[str, float]:
    """Sideways and vertical speed as translation and rotation, in the network's proportion."""
    kinds = [name.split("_")[0] for name in CAMERA_CLASSES]
    likely = {
        kind: sum(p for p, k in zip(probability, kinds, strict=False) if k == kind)
        for kind in ("pan", "around", "tilt")
    }
    right, up = geometric.truck + geometric.yaw, geometric.pedestal + geometric.pitch
    total = abs(geometric.truck) + abs(geometric.pedestal)
    lean = total / max(1e-9, abs(right) + abs(up))
    translation = likely["pan"] + likely["around"] + _GEOMETRY_WEIGHT * lean
    share = translation / (likely["pan"] + likely["around"] + likely["tilt"] + _GEOMETRY_WEIGHT)
    return {
        "truck": right * share,
        "pedestal": up * share,
        "yaw": right * (1 - share),
        "pitch": up * (1 - share),
    }
