"""How well copies of still pictures are found: one frame, so nothing changes in time.

Positives: every labelled photograph against the edits that work on single pictures. Negatives: all
pairs of pictures that no label joins.
"""

import json
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from pipeline.corpus.config import DuplicateConfig
from pipeline.evaluate.duplicate_clips import GROUPS_FILE, MEDIA_LIST
from pipeline.evaluate.duplicate_looks import Images, Look, Tally, look_at, luma_sd
from pipeline.evaluate.figures import Figure
from pipeline.evaluate.perturbations import PERTURBATIONS, Severity
from pipeline.onnx_model import OnnxModel

_LONG_SIDE = 384
_MIN_SIDE = 100
_WHOLE = (0.0, 1.0)
_SEVERITIES: tuple[Severity, ...] = ("mild", "strong")


def evaluate_pictures(
    media: Path, network: OnnxModel, config: DuplicateConfig, *, max_pictures: int | None = None
) -> list[Figure]:
    """Empty for a folder without pictures, or a network that needs several frames."""
    if network.card.num_frames not in (None, 1):
        return []
    recall = {severity: Tally() for severity in _SEVERITIES}
    looks: list[tuple[str, Look]] = []
    for name, picture_1HWC in _pictures(media)[:max_pictures]:
        if luma_sd(picture_1HWC) < config.min_luma_sd:
            continue
        look = look_at(network, picture_1HWC)
        looks.append((name, look))
        for edit in PERTURBATIONS.values():
            if edit.span == _WHOLE:
                copy = look_at(network, np.ascontiguousarray(edit.edit(picture_1HWC)))
                recall[edit.severity].pairs.append(look.matches(copy, config))
    unrelated = Tally()
    groups: list[list[str]] = json.loads((media / GROUPS_FILE).read_text())
    labelled = {frozenset(pair) for group in groups for pair in combinations(group, 2)}
    for (name, look), (other_name, other) in combinations(looks, 2):
        if frozenset((name, other_name)) not in labelled:
            unrelated.pairs.append(look.matches(other, config))
    return [
        *recall["mild"].figures("pictures: recall of mild edits"),
        *recall["strong"].figures("pictures: recall of strong edits"),
        *unrelated.figures("pictures, unrelated: called duplicates", "pairs of pictures"),
    ]


def _pictures(media: Path) -> list[tuple[str, Images]]:
    """1 x H x W x 3, RGB, reduced as clips are; those that cannot be read are left out."""
    found = []
    for line in (media / MEDIA_LIST).read_text().splitlines():
        row = json.loads(line)
        if row["kind"] != "image" or row["error"]:
            continue
        image = cv2.imread(str(media / row["name"]), cv2.IMREAD_COLOR)
        if image is None or min(image.shape[:2]) < _MIN_SIDE:
            continue
        scale = min(1.0, _LONG_SIDE / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        found.append(
            (row["name"], np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB)[None], np.uint8))
        )
    return found
