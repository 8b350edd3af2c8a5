"""Rendered clips as features: reading them, and changes of a clip whose new label is known."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.camera_network import (
    CAMERA_CLASSES,
    GRID_COLUMNS,
    GRID_ROWS,
    NUM_CELLS,
    NUM_FEATURES,
)

MIXED = len(CAMERA_CLASSES)
Features = NDArray[np.float32]
_STATIC, _HANDHELD = (CAMERA_CLASSES.index(c) for c in ("static_shot", "handheld_shot"))
_MIN_STEPS = 6
_SWAPS = {
    "mirror": (("left", "right"),),
    "flip": (("up", "down"),),
    "reverse": (("left", "right"), ("up", "down"), ("in", "out")),
}
# Signs of the eight parameters of the global motion in the mirrored and the flipped picture.
_MIRROR_SIGNS = np.array([-1, 1, -1, 1, -1, 1, -1, 1], np.float32)
_FLIP_SIGNS = np.array([1, 1, -1, -1, -1, 1, 1, -1], np.float32)


@dataclass(frozen=True, slots=True)
class Clip:
    features_SF: Features
    label: int  # MIXED for no class
    is_dolly: int  # 1 a dolly, 0 a lens, -1 neither


@dataclass(frozen=True, slots=True)
class Batch:
    features_NSF: Tensor
    is_step_NS: Tensor
    label_N: Tensor
    is_dolly_N: Tensor


def read_clips(folder: Path, split: str) -> list[Clip]:
    """All clips of a split. Raises FileNotFoundError when there is none."""
    paths = sorted(folder.glob(f"{split}-*.npz")) + sorted(folder.glob(f"{split}_figures-*.npz"))
    paths = [path for path in paths if ".partial" not in path.name]
    if not paths:
        raise FileNotFoundError(f"{folder}: no {split}-*.npz; render them first")
    clips = []
    for path in paths:
        with np.load(path) as file:
            bounds = np.cumsum(file["steps"])[:-1]
            parts = np.split(file["features"].astype(np.float32), bounds)
            clips += [
                Clip(part, int(label), int(dolly))
                for part, label, dolly in zip(parts, file["labels"], file["dolly"], strict=True)
            ]
    return clips


def collate(clips: list[Clip]) -> Batch:
    """Padded with zeros behind the end."""
    longest = max(len(clip.features_SF) for clip in clips)
    features = torch.zeros(len(clips), longest, NUM_FEATURES)
    is_step = torch.zeros(len(clips), longest)
    for index, clip in enumerate(clips):
        count = len(clip.features_SF)
        features[index, :count] = torch.from_numpy(np.ascontiguousarray(clip.features_SF))
        is_step[index, :count] = 1
    return Batch(
        features,
        is_step,
        torch.tensor([clip.label for clip in clips]),
        torch.tensor([clip.is_dolly for clip in clips]),
    )


def augment(clip: Clip, rng: np.random.Generator) -> Clip:
    """A part of the clip, mirrored, turned over, played backward, played at another speed."""
    features, label = clip.features_SF.copy(), clip.label
    # A short part of a shaking hand's path may well lead somewhere.
    if label != _HANDHELD and rng.random() < 0.5 and len(features) > _MIN_STEPS:
        count = int(rng.integers(max(_MIN_STEPS, len(features) // 2), len(features) + 1))
        start = int(rng.integers(0, len(features) - count + 1))
        features = features[start : start + count]
    if rng.random() < 0.5:
        features, label = mirror(features), _SWAPPED["mirror"][label]
    if rng.random() < 0.25:
        features, label = flip(features), _SWAPPED["flip"][label]
    if rng.random() < 0.5:
        features, label = reverse(features), _SWAPPED["reverse"][label]
    if label not in (_STATIC, _HANDHELD):
        features = at_speed(features, float(np.exp(rng.uniform(-0.35, 0.35))))
    if rng.random() < 0.3:
        trust = slice(2 * NUM_CELLS, 3 * NUM_CELLS)
        kept = rng.random(NUM_CELLS) < rng.uniform(0.5, 1)
        features[:, trust] *= kept
    return Clip(features, label, clip.is_dolly)


def variants(clip: Clip) -> list[Clip]:
    """The clip as it is, mirrored, backward, and both: four to measure on for one to render."""
    found = [clip]
    for name, change in (("mirror", mirror), ("reverse", reverse)):
        found += [
            Clip(change(c.features_SF), _SWAPPED[name][c.label], c.is_dolly) for c in list(found)
        ]
    return found


def mirror(features_SF: Features) -> Features:
    """As seen in a mirror: left and right change places."""
    u, v, trust, model, rest = _parts(features_SF)
    grids = [-u[..., ::-1], v[..., ::-1], trust[..., ::-1]]
    return _joined(grids, model * _MIRROR_SIGNS, rest)


def flip(features_SF: Features) -> Features:
    """Upside down, not turned: up and down change places."""
    u, v, trust, model, rest = _parts(features_SF)
    grids = [u[:, ::-1], -v[:, ::-1], trust[:, ::-1]]
    return _joined(grids, model * _FLIP_SIGNS, rest)


def reverse(features_SF: Features) -> Features:
    """Played backward."""
    backward = features_SF[::-1].copy()
    backward[:, : 2 * NUM_CELLS] *= -1
    backward[:, 3 * NUM_CELLS : 3 * NUM_CELLS + 8] *= -1
    return backward


def at_speed(features_SF: Features, factor: float) -> Features:
    """As if the camera did the same, so many times faster."""
    faster = features_SF.copy()
    faster[:, : 2 * NUM_CELLS] *= factor
    faster[:, 3 * NUM_CELLS : 3 * NUM_CELLS + 8] *= factor
    return faster


def _swapped(change: str) -> list[int]:
    """The label after a change, by the label before it."""
    found = []
    for name in CAMERA_CLASSES:
        kind, direction = name.split("_")
        for one, other in _SWAPS[change]:
            if direction in (one, other):
                direction = other if direction == one else one
                break
        found.append([f"{kind}_{direction}" == c for c in CAMERA_CLASSES].index(True))
    return [*found, MIXED]


_SWAPPED = {change: _swapped(change) for change in _SWAPS}


def _parts(features_SF: Features) -> tuple[Features, Features, Features, Features, Features]:
    grids = features_SF[:, : 3 * NUM_CELLS].reshape(-1, 3, GRID_ROWS, GRID_COLUMNS)
    rest = features_SF[:, 3 * NUM_CELLS :]
    return grids[:, 0], grids[:, 1], grids[:, 2], rest[:, :8], rest[:, 8:]


def _joined(grids: list[Features], model: Features, rest: Features) -> Features:
    flat = np.stack(grids, axis=1).reshape(len(model), -1)
    return np.asarray(np.concatenate([flat, model, rest], axis=1), np.float32)
