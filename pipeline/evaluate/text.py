"""Agreement of text areas on photographs with labelled boxes (ICDAR 2015), beside a plain peer.

Per picture: intersection over union of the area under our boxes and under the labelled ones.
Boxes labelled `ignore` (illegible) count neither way. The peer is a classical detector: strong
horizontal gradients closed into lines, long boxes kept.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.interval import bootstrap_mean
from pipeline.media.config import MediaLimits
from pipeline.media.image import open_image
from pipeline.score.config import TextConfig
from pipeline.score.text import TextStage
from pipeline.score.text_reader import TextBox

_PHOTO_FOLDER = "photos/mmocr_icdar15"
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TextFigures:
    """Means over pictures; intervals are 95 %. `recall`: labelled words half covered or more."""

    num_pictures: int
    num_words: int
    area_iou: float
    area_iou_interval: tuple[float, float]
    word_recall: float
    area_precision: float
    peer_area_iou: float
    peer_area_iou_interval: tuple[float, float]
    long_side_px: int


def evaluate_text(media: Path, *, long_side_px: int | None = None) -> TextFigures:
    """With the size of the second look, or another one: `long_side_px`."""
    labels = json.loads((media / "gt/ocr_icdar15.json").read_text())["data_list"]
    config = TextConfig()
    stage = TextStage(config)
    stage.setup()
    long_side_px = long_side_px or config.follow_long_side
    ious, peer_ious, precisions, covered = [], [], [], []
    for entry in labels:
        path = media / _PHOTO_FOLDER / Path(entry["img_path"]).name
        if not path.exists():
            continue
        image = open_image(path.as_uri(), MediaLimits())
        wanted, ignored, words = _labelled(entry["instances"], image.shape[:2])
        found = _mask(stage.find(image, long_side_px), image.shape[:2])
        peer = _classical(image)
        ious.append(_iou(found & ~ignored, wanted))
        peer_ious.append(_iou(peer & ~ignored, wanted))
        inside = found & ~ignored
        precisions.append(float((inside & wanted).sum()) / max(1, int(inside.sum())))
        covered += [float(found[word].mean() >= 0.5) for word in words]
    return TextFigures(
        num_pictures=len(ious),
        num_words=len(covered),
        area_iou=float(np.mean(ious)),
        area_iou_interval=bootstrap_mean(ious),
        word_recall=float(np.mean(covered)),
        area_precision=float(np.mean(precisions)),
        peer_area_iou=float(np.mean(peer_ious)),
        peer_area_iou_interval=bootstrap_mean(peer_ious),
        long_side_px=long_side_px,
    )


def _labelled(
    instances: list[dict[str, Any]], size_HW: tuple[int, ...]
) -> tuple[Mask, Mask, list[Mask]]:
    """The area of the legible words, of the ignored ones, and each legible word alone."""
    wanted, ignored = np.zeros(size_HW[:2], bool), np.zeros(size_HW[:2], bool)
    words = []
    for instance in instances:
        corners = np.array(instance["polygon"], np.int32).reshape(-1, 2)
        area = np.zeros(size_HW[:2], np.uint8)
        cv2.fillPoly(area, [corners], 1)
        if instance["ignore"]:
            ignored |= area > 0
        else:
            wanted |= area > 0
            words.append(area > 0)
    return wanted, ignored & ~wanted, words


def _mask(boxes: list[TextBox], size_HW: tuple[int, ...]) -> Mask:
    mask = np.zeros(size_HW[:2], np.uint8)
    size = np.array([size_HW[1], size_HW[0]])
    for box in boxes:
        cv2.fillPoly(mask, [np.round(box.corners_42 * size).astype(np.int32)], 1)
    return mask > 0


def _classical(image_HWC: NDArray[np.uint8]) -> Mask:
    gray = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)
    gradient = cv2.morphologyEx(gray, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    _, edges = cv2.threshold(gradient, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    lines = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((1, 9), np.uint8))
    contours, _ = cv2.findContours(lines, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    mask = np.zeros(gray.shape, np.uint8)
    for contour in contours:
        left, top, width, height = cv2.boundingRect(contour)
        filled = float((lines[top : top + height, left : left + width] > 0).mean())
        if width > 1.5 * height and height >= 8 and filled > 0.45:
            mask[top : top + height, left : left + width] = 1
    return mask > 0


def _iou(found: Mask, wanted: Mask) -> float:
    union = int((found | wanted).sum())
    return float((found & wanted).sum()) / union if union else 1.0
