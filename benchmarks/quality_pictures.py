"""Degrade photographs and video frames and write what the quality network learns from.

    python benchmarks/quality_pictures.py --pictures B.zip --out DIR [--groups 2400] [--workers 1]

B.zip holds pictures with a stated open licence, divided by source (`python -m benchmarks.overlays
pack`). A group is one part of a picture as it is and at six levels of one kind of degradation (or
of two at once), middle frame of five in which the part drifts. Group N is the same on every
machine. Files of 50 groups; a second call renders what is missing.
"""

import argparse
import json
import multiprocessing
import os
import sys
import zipfile
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from modeling.perception.quality.data import KINDS as TRAIN_KINDS  # one codec stays unseen
from pipeline.evaluate.degradations import KINDS, NUM_LEVELS, Degradation, motion_blur

GROUPS_PER_FILE = 50
SIDE_PX = 176
_MARGIN_PX = 24  # so that no border lies in the part
_FRAMES = 5
_MIXED_SHARE = 0.15
_MIN_SD = 8.0
_VALIDATION_SHARE = 0.1
Picture = NDArray[np.uint8]


def render_group(number: int, split: str, file: Path) -> tuple[Picture, NDArray[np.float32]] | None:
    """Lumas L x H x W from the best to the worst, and per level (kind, second kind or -1, sigma).

    None where the drawn part is too flat to say anything.
    """
    rng = np.random.default_rng([number, split == "validation"])
    names = list(_sources(file, split).values())
    chosen = names[int(rng.integers(len(names)))]
    picture = _read(file, chosen[int(rng.integers(len(chosen)))])
    frames = _drifting(rng, picture)
    if cv2.cvtColor(frames[2], cv2.COLOR_RGB2GRAY).std() < _MIN_SD:
        return None
    kinds = [TRAIN_KINDS[number % len(TRAIN_KINDS)]]
    if rng.random() < _MIXED_SHARE:
        kinds.append(TRAIN_KINDS[int(rng.integers(len(TRAIN_KINDS)))])
    angle_deg = float(rng.uniform(0, 180))
    scale = float(np.exp(rng.uniform(-0.15, 0.15)))
    levels, labels = [frames], [(-1.0, -1.0, 0.0)]
    for level in range(NUM_LEVELS):
        worse, sigma_squared = frames, 0.0
        for kind in kinds:
            step = KINDS[kind]
            amount = _varied(step, kind, level, scale)
            is_stroke = step.apply is motion_blur
            worse = (
                motion_blur(worse, amount, angle_deg) if is_stroke else step.apply(worse, amount)
            )
            if step.sigma_px is not None:
                sigma_squared += step.sigma_px(amount) ** 2
        levels.append(worse)
        second = TRAIN_KINDS.index(kinds[-1]) if len(kinds) > 1 else -1
        labels.append((TRAIN_KINDS.index(kinds[0]), second, sigma_squared**0.5))
    inner = slice(_MARGIN_PX, _MARGIN_PX + SIDE_PX)
    lumas = [cv2.cvtColor(f[_FRAMES // 2], cv2.COLOR_RGB2GRAY)[inner, inner] for f in levels]
    return np.stack(lumas), np.array(labels, np.float32)


def _varied(step: Degradation, kind: str, level: int, scale: float) -> float:
    """The amount of the level, a little more or less, so that levels are no six fixed numbers."""
    amount = step.amounts[level]
    if kind in ("h264", "banding"):
        return amount + (scale - 1) * (8 if kind == "h264" else 2)
    return max(1.05, amount * scale) if kind == "enlarged" else amount * scale


def _drifting(rng: np.random.Generator, picture_HWC: Picture) -> Picture:
    """Frames of a part that moves by up to three pixels a frame, reduced to hide its own wear."""
    side = SIDE_PX + 2 * _MARGIN_PX
    room = min(picture_HWC.shape[:2]) / (side + 16)
    factor = float(np.clip(np.exp(rng.uniform(np.log(0.8), np.log(2.0))), 0.8, max(0.8, room)))
    factor = min(factor, room)
    step = rng.uniform(-3, 3, 2) * (rng.random() < 0.8)
    span = np.array(picture_HWC.shape[1::-1]) - side * factor
    corner = np.clip(rng.uniform(0, 1, 2) * span, 12 * factor, np.maximum(12 * factor, span - 12))
    frames = []
    gain, lift = rng.uniform(0.6, 1.1), rng.uniform(-10, 25)
    # Reduced by area first, then moved: the move alone would alias.
    size = (round(picture_HWC.shape[1] / factor), round(picture_HWC.shape[0] / factor))
    small = cv2.resize(picture_HWC, size, interpolation=cv2.INTER_AREA)
    for index in range(_FRAMES):
        x, y = np.round(corner / factor + step * (index - _FRAMES // 2))
        x, y = int(np.clip(x, 0, size[0] - side)), int(np.clip(y, 0, size[1] - side))
        frames.append(small[y : y + side, x : x + side])
    stack = np.stack(frames).astype(np.float32) * np.float32(gain) + np.float32(lift)
    stack = stack[:, :, ::-1] if rng.random() < 0.5 else stack
    return np.asarray(np.clip(np.round(stack), 0, 255), np.uint8)


def write_file(task: tuple[Path, str, int, Path]) -> None:
    """One file of GROUPS_PER_FILE groups; nothing is done where it is there."""
    out, split, index, pictures = task
    path = out / f"{split}-{index:05d}.npz"
    if path.exists():
        return
    cv2.setNumThreads(1)
    numbers = range(index * GROUPS_PER_FILE, (index + 1) * GROUPS_PER_FILE)
    groups = [g for n in numbers if (g := render_group(n, split, pictures)) is not None]
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, luma=np.stack([g[0] for g in groups]), label=np.stack([g[1] for g in groups]))
    partial.replace(path)


@cache
def _sources(file: Path, split: str) -> dict[str, list[str]]:
    """Picture names by source. What the overlay detector holds out is what this one does."""
    wanted = "held_out" if split == "validation" else "train"
    with zipfile.ZipFile(file) as archive:
        rows = json.loads(archive.read("pictures.json"))
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["split"] == wanted:
            found.setdefault(row["group"], []).append(row["file"])
    large = {
        group: [name for name in names if min(_read(file, name).shape[:2]) >= SIDE_PX + 50]
        for group, names in sorted(found.items())
    }
    return {group: names for group, names in large.items() if names}


@cache
def _read(file: Path, name: str) -> Picture:
    with zipfile.ZipFile(file) as archive:
        data = np.frombuffer(archive.read(name), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description="Render what the quality network learns from.")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--groups", type=int, default=2400)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    counts = {"validation": round(arguments.groups * _VALIDATION_SHARE), "train": arguments.groups}
    tasks = [
        (arguments.out, split, index, arguments.pictures)
        for split, count in counts.items()
        for index in range(-(-count // GROUPS_PER_FILE))
    ]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for done, _ in enumerate(pool.imap(write_file, tasks), start=1):
            print(f"{done} of {len(tasks)} files", flush=True)


if __name__ == "__main__":
    main()
