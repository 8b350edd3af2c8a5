"""Finding and reading text: one small face over RapidOCR (default) and PaddleOCR (optional).

The default networks are PP-OCR's (PaddlePaddle, Apache-2.0), which come inside the rapidocr wheel;
nothing is downloaded.
"""

import hashlib
import logging
import tempfile
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources as package_files
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.onnx_model import WeightsError
from pipeline.score.onnx_bytes import without_subnormals

TextBackend = Literal["rapidocr", "paddleocr"]
_RAPID_WEIGHTS = ("PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx")
_NO_LIMIT_PX = 4096  # frames arrive at the size that they shall be looked at


@dataclass(frozen=True)
class TextBox:
    """Four corners in shares of width and height, clockwise from the top left."""

    corners_42: NDArray[np.float64]
    confidence: float

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """left, top, right, bottom of the upright box around it, inside the picture."""
        low = np.clip(self.corners_42.min(axis=0), 0.0, 1.0)
        high = np.clip(self.corners_42.max(axis=0), 0.0, 1.0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


class TextReader(Protocol):
    """Frames and lines are RGB."""

    model_id: str

    def find(self, frame_HWC: NDArray[np.uint8]) -> list[TextBox]:
        """Boxes of text lines, unfiltered."""

    def read(self, line_HWC: NDArray[np.uint8]) -> tuple[str, float]:
        """The words of one line and the confidence in [0, 1]; empty where nothing is legible."""


def open_reader(backend: TextBackend) -> TextReader:
    return RapidReader() if backend == "rapidocr" else PaddleReader()


@cache
def text_weights_sha256(backend: TextBackend) -> tuple[str, ...]:
    """What the results of a backend depend on, for the fingerprint.

    PaddleOCR keeps its own store of models: there the package's version stands for them.
    """
    if backend == "paddleocr":
        from importlib.metadata import version

        return (version("paddleocr"),)
    return tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in _rapid_weights())


class RapidReader:
    def __init__(self) -> None:
        from rapidocr import RapidOCR

        det, rec = _rapid_weights()
        self.model_id = "rapidocr-ppocrv6-small"
        with tempfile.TemporaryDirectory() as folder:
            # A quarter and more of the last layers' weights: without them it is three times faster.
            fast_det = Path(folder) / det.name
            fast_det.write_bytes(without_subnormals(det.read_bytes()))
            self._engine: Any = RapidOCR(
                params={
                    "Global.log_level": "error",
                    "Global.max_side_len": _NO_LIMIT_PX,
                    "Global.text_score": 0.0,
                    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                    "Det.model_path": str(fast_det),
                    "Det.limit_type": "max",
                    "Det.limit_side_len": _NO_LIMIT_PX,
                    "Rec.model_path": str(rec),
                }
            )
            self.find(np.zeros((32, 32, 3), np.uint8))  # a network is loaded at its first use
        # The package hangs its own console handler on its logger.
        logging.getLogger("RapidOCR").handlers.clear()

    def find(self, frame_HWC: NDArray[np.uint8]) -> list[TextBox]:
        height, width = frame_HWC.shape[:2]
        found = self._engine(
            np.ascontiguousarray(frame_HWC[..., ::-1]), use_det=True, use_cls=False, use_rec=False
        )
        if found.boxes is None:
            return []
        size = np.array([width, height], np.float64)
        return [
            TextBox(np.asarray(box, np.float64) / size, float(score))
            for box, score in zip(found.boxes, found.scores, strict=True)
        ]

    def read(self, line_HWC: NDArray[np.uint8]) -> tuple[str, float]:
        found = self._engine(
            np.ascontiguousarray(line_HWC[..., ::-1]), use_det=False, use_cls=False, use_rec=True
        )
        if not found.txts:
            return "", 0.0
        return str(found.txts[0]).strip(), float(found.scores[0])


class PaddleReader:
    """PaddleOCR 3 (extra `paddle`); its models come from the user's own installation."""

    def __init__(self) -> None:
        from paddleocr import PaddleOCR

        self.model_id = "paddleocr"
        self._engine: Any = PaddleOCR(
            use_doc_orientation_classify=False,
            use_doc_unwarping=False,
            use_textline_orientation=False,
        )

    def find(self, frame_HWC: NDArray[np.uint8]) -> list[TextBox]:
        height, width = frame_HWC.shape[:2]
        size = np.array([width, height], np.float64)
        (page,) = self._engine.predict(np.ascontiguousarray(frame_HWC[..., ::-1]))
        return [
            TextBox(np.asarray(corners, np.float64) / size, float(score))
            for corners, score in zip(page["rec_polys"], page["rec_scores"], strict=True)
        ]

    def read(self, line_HWC: NDArray[np.uint8]) -> tuple[str, float]:
        (page,) = self._engine.predict(np.ascontiguousarray(line_HWC[..., ::-1]))
        if not page["rec_texts"]:
            return "", 0.0
        return " ".join(page["rec_texts"]).strip(), float(min(page["rec_scores"]))


def _rapid_weights() -> list[Any]:
    folder = package_files.files("rapidocr") / "models"
    paths = [folder / name for name in _RAPID_WEIGHTS]
    for path in paths:
        if not path.is_file():
            raise WeightsError(f"{path}: not in the rapidocr package; install rapidocr>=3.10,<4")
    return paths
