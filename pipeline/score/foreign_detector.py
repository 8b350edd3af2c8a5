"""A user's own detector in place of the overlay network: ONNX files as their exporters write them.

Layouts, C the number of classes, N of places, H x W the input (float32, 1 x 3 x H x W):

    yolo           1 x (4 + C) x N: middle and size in pixels, scores (ultralytics 8, 11, ...)
    yolox          1 x N x (5 + C): offsets and logarithms of sizes in strides, object, scores
    yolox_decoded  the same with middle and size in pixels (exported with --decode_in_inference)
    rtdetr         1 x N x (4 + C), or two outputs of 4 and C: middle and size in shares, scores;
                   an output named `logits` goes through a sigmoid

YOLO and RT-DETR see RGB in [0, 1], YOLOX sees BGR in [0, 255]. RT-DETR sees the picture squeezed,
the others at its own aspect, the rest gray (at the right and at the bottom).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pipeline.onnx_model import WeightsError, WeightsFile, locate_weights, open_session
from pipeline.score.config import DetectorLayout
from schemas.model_card import INTERFACE_VERSION, ModelCard
from schemas.overlay_network import OVERLAY_KINDS, OVERLAY_OUTPUTS
from schemas.scores import OverlayKind

_GRAY = 114  # what YOLO and YOLOX are trained with around the picture
_STRIDES = (8, 16, 32)
_MAX_BOXES = 100
_Boxes = tuple[NDArray[np.float32], NDArray[np.float32]]  # cxcywh N x 4, scores N x C
_OnnxOutputs = Mapping[str, NDArray[np.float32]]


class ForeignDetector:
    """Answers as an `OnnxModel` of kind `overlay` does, one frame at a time.

    `classes`: what kind each of the network's classes is, in its order; "" is left out.
    Raises WeightsError for a file whose input or outputs are not those of the layout.
    """

    def __init__(
        self, name: str, layout: DetectorLayout, classes: Sequence[OverlayKind | str]
    ) -> None:
        weights = locate_weights(name)
        self._session = open_session(weights.path, provider="cpu", num_threads=1)
        self._layout = layout
        self._classes = tuple(classes)
        self._input, height, width = _input_of(self._session, weights)
        self._path = weights.path
        self.metadata: dict[str, str] = {}
        self.card = ModelCard(
            kind="overlay",
            model_id=f"{weights.path.stem}-{weights.sha256[:8]}",
            interface_version=INTERFACE_VERSION,
            num_frames=None,
            height=height,
            width=width,
            resize="stretch",
            config_sha256=hashlib.sha256(repr((layout, self._classes)).encode()).hexdigest(),
        )
        self.run(np.zeros((1, 1, height, width, 3), np.uint8))  # outputs of another layout end here

    def card_for(self, picture_HW: tuple[int, int]) -> ModelCard:
        """The size to which a picture is scaled before it is filled up."""
        if self._layout == "rtdetr":
            return self.card
        scale = min(self.card.height / picture_HW[0], self.card.width / picture_HW[1])
        height, width = (max(1, round(side * scale)) for side in picture_HW)
        return self.card.model_copy(update={"height": height, "width": width})

    def run(self, frames_NTHWC: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """`boxes`, `scores`, `classes` of one frame, as schemas/overlay_network.py has them."""
        frame = frames_NTHWC[0, 0]
        height, width = frame.shape[:2]
        outputs = self._session.run(None, {self._input: self._filled(frame)})
        names = [output.name for output in self._session.get_outputs()]
        found = dict(zip(names, (np.asarray(each, np.float32) for each in outputs), strict=True))
        boxes_N4, scores_NC = _DECODERS[self._layout](found, (self.card.height, self.card.width))
        if boxes_N4.shape[1] != 4 or scores_NC.shape != (len(boxes_N4), len(self._classes)):
            shapes = {name: value.shape for name, value in found.items()}
            raise WeightsError(
                f"{self._path}: outputs {shapes} are not those of layout {self._layout!r} with "
                f"{len(self._classes)} classes; correct score.overlays.layout or .classes"
            )
        if self._layout != "rtdetr":
            boxes_N4 = np.asarray(boxes_N4 / np.array([width, height] * 2, np.float32), np.float32)
        return self._as_shares(boxes_N4, scores_NC)

    def _filled(self, frame_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        whole = np.full((self.card.height, self.card.width, 3), _GRAY, np.uint8)
        whole[: frame_HWC.shape[0], : frame_HWC.shape[1]] = frame_HWC
        values = np.asarray(whole, np.float32)
        values = values[..., ::-1] if self._layout.startswith("yolox") else values / np.float32(255)
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None])

    def _as_shares(
        self, boxes_N4: NDArray[np.float32], scores_NC: NDArray[np.float32]
    ) -> dict[str, NDArray[Any]]:
        known = [index for index, kind in enumerate(self._classes) if kind]
        kinds = np.array([OVERLAY_KINDS.index(self._classes[index]) for index in known])
        of_known = scores_NC[:, known]
        best = of_known.argmax(axis=1)
        scores = of_known[np.arange(len(best)), best]
        order = np.argsort(-scores, kind="stable")[:_MAX_BOXES]
        middle, half = boxes_N4[order, :2], boxes_N4[order, 2:] / 2
        corners = np.concatenate([middle - half, middle + half], axis=1)
        values = (corners, scores[order], kinds[best[order]])
        return {name: value[None] for name, value in zip(OVERLAY_OUTPUTS, values, strict=True)}


def _input_of(session: onnxruntime.InferenceSession, weights: WeightsFile) -> tuple[str, int, int]:
    inputs = session.get_inputs()
    shape = inputs[0].shape
    fits = len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(shape) == 4
    if not fits or shape[1] != 3 or not all(isinstance(side, int) for side in shape[2:]):
        found = [(item.name, item.type, item.shape) for item in inputs]
        raise WeightsError(
            f"{weights.path}: inputs are {found}, a detector has one, float 1 x 3 x H x W with "
            "H and W fixed; export it so"
        )
    return inputs[0].name, int(shape[2]), int(shape[3])


def _one(outputs: _OnnxOutputs) -> NDArray[np.float32]:
    """The only output, without its first dimension; nothing that fits where it is another."""
    [value] = outputs.values() if len(outputs) == 1 else [np.zeros((1, 0, 0), np.float32)]
    return value[0] if value.ndim == 3 else np.zeros((0, 0), np.float32)


def _yolo(outputs: _OnnxOutputs, size_HW: tuple[int, int]) -> _Boxes:
    del size_HW
    rows = _one(outputs).T
    return rows[:, :4], rows[:, 4:]


def _yolox_decoded(outputs: _OnnxOutputs, size_HW: tuple[int, int]) -> _Boxes:
    del size_HW
    rows = _one(outputs)
    return rows[:, :4], rows[:, 4:5] * rows[:, 5:]


def _yolox(outputs: _OnnxOutputs, size_HW: tuple[int, int]) -> _Boxes:
    offsets, scores = _yolox_decoded(outputs, size_HW)
    places, strides = [], []
    for stride in _STRIDES:
        height, width = (side // stride for side in size_HW)
        y, x = np.mgrid[:height, :width]
        places.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full(height * width, stride))
    grid, stride_N1 = np.concatenate(places), np.concatenate(strides)[:, None]
    if offsets.shape != (len(grid), 4):
        return offsets[:, :0], scores
    middle, size = (offsets[:, :2] + grid) * stride_N1, np.exp(offsets[:, 2:]) * stride_N1
    return np.concatenate([middle, size], axis=1).astype(np.float32), scores


def _rtdetr(outputs: _OnnxOutputs, size_HW: tuple[int, int]) -> _Boxes:
    del size_HW
    if len(outputs) == 1:
        rows = _one(outputs)
        return rows[:, :4], rows[:, 4:]
    empty = np.zeros((0, 0), np.float32)
    boxes, scores = empty, empty
    for name, value in outputs.items():
        if value.ndim == 3 and "box" in name:
            boxes = value[0]
        elif value.ndim == 3:
            scores = 1 / (1 + np.exp(-value[0])) if name == "logits" else value[0]
    return boxes, scores


_DECODERS: dict[DetectorLayout, Callable[[_OnnxOutputs, tuple[int, int]], _Boxes]] = {
    "yolo": _yolo,
    "yolox": _yolox,
    "yolox_decoded": _yolox_decoded,
    "rtdetr": _rtdetr,
}
