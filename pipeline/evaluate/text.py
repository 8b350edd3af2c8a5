"""Agreement of text areas on photographs with labelled boxes (ICDAR 2015), beside a plain peer.

Per picture: intersection over union of the area under our boxes and under the labelled ones.
Boxes labelled `ignore` (illegible) count neither way. The peer is a classical detector: strong
horizontal gradients closed into lines, long boxes kept.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.figures import OURS, Figure, mean_figure, share_figure
from pipeline.media.config import MediaLimits
from pipeline.media.image import open_image
from pipeline.score.config import TextConfig
from pipeline.score.text import TextStage
from pipeline.score.text_reader import TextBox

_PHOTO_FOLDER = "photos/mmocr_icdar15"
Mask = NDArray[np.bool_]


PART = "text"
PEER = "closed gradients"
LABEL_FILE = "gt/ocr_icdar15.json"


def evaluate_text(media: Path, *, long_side_px: int | None = None) -> list[Figure]:
    """With the size of the second look, or another one: `long_side_px`.

    Precision of a picture in which nothing was found is 0. A word is found when half of it lies
    under the area.
    """
    labels = json.loads((media / LABEL_FILE).read_text())["data_list"]
    config = TextConfig()
    stage = TextStage(config)
    stage.setup()
    long_side_px = long_side_px or config.follow_long_side
    ious: dict[str, list[float]] = {OURS: [], PEER: []}
    precisions: dict[str, list[float]] = {OURS: [], PEER: []}
    words_found: dict[str, list[bool]] = {OURS: [], PEER: []}
    for entry in labels:
        path = labelled_photo(media, entry)
        if not path.exists():
            continue
        image = open_image(path.as_uri(), MediaLimits())
        wanted, ignored, words = labelled_areas(entry["instances"], image.shape[:2])
        found = box_mask(stage.find(image, long_side_px), image.shape[:2])
        for method, area in ((OURS, found), (PEER, _classical(image))):
            judged = area & ~ignored
            ious[method].append(_iou(judged, wanted))
            precisions[method].append(float((judged & wanted).sum()) / max(1, int(judged.sum())))
            words_found[method] += [bool(area[word].mean() >= 0.5) for word in words]
    figures = []
    for method in (OURS, PEER):
        figures += [
            mean_figure(PART, "area IoU", method, ious[method], "pictures"),
            mean_figure(PART, "area precision", method, precisions[method], "pictures"),
            share_figure(PART, "words found", method, words_found[method], "words"),
        ]
    return figures


def labelled_photo(media: Path, entry: dict[str, Any]) -> Path:
    """Where the photograph of an entry of the labels' `data_list` lies; not all are there."""
    return media / _PHOTO_FOLDER / Path(entry["img_path"]).name


def labelled_areas(
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


def box_mask(boxes: list[TextBox], size_HW: tuple[int, ...]) -> Mask:
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
