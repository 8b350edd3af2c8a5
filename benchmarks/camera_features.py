"""Render clips with a known camera movement and write what the camera network learns from.

    python benchmarks/camera_features.py --out DIR --clips 4000 --media MEDIA --wallpapers DIR
                                         --gcompris DIR --skimage DIR [--workers 2]

Each clip is a layered scene of one split's photographs (and running frames of still-camera clips),
rendered at the times that the sampler takes, encoded as H.264, and measured by the flow code of the
pipeline. Clip N is the same on every machine. Files of 50 clips; a second call renders what is
missing.
"""

import argparse
import io
import multiprocessing
import os
import sys
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.learn_photos import GCOMPRIS, WALLPAPERS, read_resource
from pipeline.evaluate.camera_paths import draw_path
from pipeline.evaluate.camera_scenes import Picture, add_figure, draw_scene, render_scene
from pipeline.score.camera_features import step_features
from pipeline.score.config import ScoreConfig
from pipeline.score.flow import FlowEstimator
from pipeline.score.sampler import Clip
from schemas.camera_network import CAMERA_CLASSES, NUM_FEATURES
from schemas.clip import ClipRow
from schemas.status import Failure

CLIPS_PER_FILE = 50
MIXED_SHARE = 0.1
SKIMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg",
           "grass.png", "gravel.png", "brick.png", "camera.png")  # fmt: skip
STILL_CLIPS = ("again.mkv", "book.mkv", "bottle-detection.mp4", "car-detection.mp4", "help.mkv",
               "milk.mkv", "walk.mkv")  # fmt: skip
_LONG_SIDE_PX = 1000
_RATES = (8.0, 10.0, 12.5, 15.0, 24.0, 25.0, 30.0, 50.0, 60.0)
_ASPECTS = (16 / 9, 16 / 9, 4 / 3, 2.35, 1.0, 3 / 4, 9 / 16)
_MAX_SAMPLES = 129


@dataclass(frozen=True, slots=True)
class Folders:
    media: Path
    wallpapers: Path
    gcompris: Path
    skimage: Path


def load_pictures(folders: Folders) -> dict[str, list[Picture]]:
    """Gray photographs by split, every fifth of the sorted names for validation."""
    content = {f"skimage/{name}": (folders.skimage / name).read_bytes() for name in SKIMAGE}
    for number in range(1, 6):
        path = folders.media / f"photos/mmocr_icdar15/img_{number}.jpg"
        content[f"icdar15/{number}"] = path.read_bytes()
    for name in WALLPAPERS:
        content[f"wallpapers/{name}"] = (folders.wallpapers / name).read_bytes()
    for names in GCOMPRIS.values():
        for name in names:
            content[f"gcompris/{name}"] = read_resource(folders.gcompris, name)
    splits: dict[str, list[Picture]] = {"train": [], "validation": []}
    for name in sorted(content):
        split = "validation" if zlib.crc32(name.encode()) % 5 == 0 else "train"
        with Image.open(io.BytesIO(content[name])) as image:
            image.thumbnail((_LONG_SIDE_PX, _LONG_SIDE_PX))
            splits[split].append(np.asarray(image.convert("L")))
    return splits


@cache
def load_still_clip(path: Path) -> Picture:
    """The first ten seconds of a clip at 8 frames a second, T x H x W, 360 rows at most."""
    frames = []
    with av.open(str(path)) as container:
        next_s = 0.0
        for frame in container.decode(video=0):
            if frame.time is None or frame.time < next_s:
                continue
            next_s += 0.125
            rows = min(360, frame.height)
            width = round(frame.width * rows / frame.height)
            small = frame.reformat(width=width, height=rows, format="gray")
            frames.append(np.asarray(small.to_ndarray(), np.uint8))
            if len(frames) == 80:
                break
    return np.stack(frames)


def render_clip(
    number: int, split: str, pictures: list[Picture], stills: list[Path]
) -> tuple[NDArray[np.float16], int, int] | None:
    """Features, label (after the last class: mixed), and 1 for a dolly, 0 for a lens, else -1."""
    rng = np.random.default_rng([zlib.crc32(split.encode()), number])
    mixed = rng.random() < MIXED_SHARE
    label = None if mixed else CAMERA_CLASSES[number % len(CAMERA_CLASSES)]
    has_figure = split.endswith("figures")
    if has_figure and number % 4:
        label = "handheld_shot" if number % 4 == 3 else "static_shot"
    times_s = _sample_times(rng)
    aspect = float(rng.choice(_ASPECTS))
    short = int(rng.choice([128, 144, 160, 256], p=[0.3, 0.3, 0.3, 0.1]))
    height, width = (
        (short, round(short * aspect)) if aspect >= 1 else (round(short / aspect), short)
    )
    size_HW = (height // 2 * 2, width // 2 * 2)
    diagonal_px = float(np.hypot(*size_HW))
    if label in ("static_shot", "handheld_shot") and stills and rng.random() < 0.35:
        frames = _still_frames(rng, label, times_s, stills, size_HW)
        is_dolly = None
    else:
        view_deg = np.exp(rng.uniform(np.log(20), np.log(90)))
        focal = size_HW[1] / diagonal_px / 2 / float(np.tan(np.radians(view_deg / 2)))
        is_flat = bool(rng.random() < 0.08) and label not in ("around_left", "around_right")
        ratio = float(np.exp(rng.uniform(np.log(2.0), np.log(8.0))))
        background = ratio**-0.5
        path = draw_path(rng, label, times_s, focal=focal, background=background)
        scene = draw_scene(rng, pictures, focal=focal, diagonal_px=diagonal_px,
                           background=background, path=path, is_flat=is_flat)  # fmt: skip
        if has_figure:
            scene = add_figure(rng, scene, pictures, diagonal_px=diagonal_px)
        num_blurred = 2 if rng.random() < 0.15 else 1
        frames = [f[..., 0] for f in render_scene(scene, path, size_HW=size_HW,
                                                  num_blurred=num_blurred)]  # fmt: skip
        is_dolly = path.is_dolly
    clip = _as_clip(_encoded(rng, _worn(rng, frames)), times_s)
    estimator = FlowEstimator(ScoreConfig().flow)
    track = estimator.track(clip)
    if isinstance(track, Failure):
        return None
    class_index = len(CAMERA_CLASSES) if label is None else CAMERA_CLASSES.index(label)
    return (
        step_features(track).astype(np.float16),
        class_index,
        -1 if is_dolly is None else int(is_dolly),
    )


def _sample_times(rng: np.random.Generator) -> NDArray[np.float64]:
    """As the sampler takes luma frames of a clip of some rate and length."""
    fps = float(rng.choice(_RATES))
    rate = fps / max(1, int(np.ceil(fps / 32)))
    duration_s = min(float(np.exp(rng.uniform(np.log(1.0), np.log(6.0)))), _MAX_SAMPLES / rate)
    times: list[float] = []
    next_s = 0.0
    for index in range(int(duration_s * fps)):
        if index / fps >= next_s - 0.5 / fps:
            times.append(index / fps)
            while next_s - 0.5 / fps <= index / fps:
                next_s += 0.125
    return np.array(times)


def _still_frames(
    rng: np.random.Generator,
    label: str,
    times_s: NDArray[np.float64],
    stills: list[Path],
    size_HW: tuple[int, int],
) -> list[Picture]:
    """A running still-camera clip: a part of it as it is, or shaken as by a hand."""
    from pipeline.evaluate import camera_paths

    clip = load_still_clip(stills[int(rng.integers(len(stills)))])
    height, width = size_HW
    zoom = rng.uniform(1.0, 1.8) if label == "static_shot" else rng.uniform(1.25, 1.8)
    scale = zoom * max(height / clip.shape[1], width / clip.shape[2])
    room = np.array([clip.shape[2] * scale - width, clip.shape[1] * scale - height])
    corner = rng.uniform(0.1, 0.9, 2) * room
    shift_T2 = np.zeros((len(times_s), 2))
    if label == "handheld_shot":
        path = camera_paths.draw_path(rng, "handheld_shot", times_s, focal=1.0, background=0.5)
        shift_T2 = path.angles_T3[:, [1, 0]] * np.hypot(height, width)
    first = int(rng.integers(len(clip)))
    frames = []
    for index, shift in enumerate(shift_T2):
        # Forward and back again: no cut where the clip ends.
        at = (first + index) % (2 * len(clip) - 2)
        image = clip[at if at < len(clip) else 2 * len(clip) - 2 - at]
        x, y = corner + shift
        matrix = np.array([[scale, 0, -x], [0, scale, -y]])
        seen = cv2.warpAffine(
            image, matrix, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
        )
        frames.append(np.asarray(seen, np.uint8))
    return frames


def _worn(rng: np.random.Generator, frames: list[Picture]) -> list[Picture]:
    """With noise, a drift of exposure, and now and then a line of text that stands still."""
    sigma = rng.uniform(0, 6) if rng.random() < 0.4 else 0.0
    drift = rng.normal(0, 0.15) if rng.random() < 0.25 else 0.0
    gain, lift = rng.uniform(0.6, 1.1), rng.uniform(0, 20)
    height, width = frames[0].shape
    drawn = np.zeros((height, width), np.uint8)
    if rng.random() < 0.2:
        text, size = "Lorem ipsum dolor"[: int(rng.integers(3, 18))], height / rng.uniform(250, 600)
        at = (int(rng.uniform(0, 0.7) * width), int(rng.choice([0.12, 0.9]) * height))
        cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_DUPLEX, size, 255, 1, cv2.LINE_AA)
    mark, marked = drawn.astype(np.float32) / 255, bool(drawn.any())
    noise = sigma * rng.standard_normal((height + 32, width + 32), np.float32)
    worn = []
    for index, frame in enumerate(frames):
        image = frame * np.float32(gain * (1 + drift * index / len(frames))) + np.float32(lift)
        if marked:
            image += mark * (240 - image)
        if sigma:
            top, left = rng.integers(0, 32, 2)
            image += noise[top : top + height, left : left + width]
        worn.append(np.asarray(np.clip(image, 0, 255), np.uint8))
    return worn


def _encoded(rng: np.random.Generator, frames: list[Picture]) -> list[Picture]:
    """Through H.264 at eight frames a second."""
    options = {"crf": str(rng.integers(16, 34)), "preset": "superfast", "threads": "1"}
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8, options=options)
        stream.height, stream.width = frames[0].shape
        stream.pix_fmt = "gray"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as reader:
        decoded = reader.decode(video=0)
        return [np.asarray(frame.to_ndarray(format="gray"), np.uint8) for frame in decoded]


def _as_clip(frames: list[Picture], times_s: NDArray[np.float64]) -> Clip:
    height, width = frames[0].shape
    row = ClipRow(clip_id="0" * 32, source_uri="file:///rendered", source_sha256="0" * 64,
                  media_kind="video", end_frame=len(frames), end_s=float(times_s[-1]) + 0.1,
                  fps=8.0, width=width, height=height)  # fmt: skip
    return Clip(row=row, luma_times_s=times_s, luma_THW=np.stack(frames),
                key_frames_THWC=np.zeros((1, 2, 2, 3), np.uint8),
                native_luma_THW=np.zeros((1, 2, 2), np.uint8))  # fmt: skip


def write_file(task: tuple[Path, str, int, Folders]) -> None:
    """One file of CLIPS_PER_FILE clips; nothing is done where it is there."""
    out, split, index, folders = task
    path = out / f"{split}-{index:05d}.npz"
    if path.exists():
        return
    cv2.setNumThreads(1)
    pictures = _pictures(folders)[split.removesuffix("_figures")]
    stills = [folders.media / "videos/intel_iot" / name for name in STILL_CLIPS]
    stills = (
        stills[::4]
        if split.startswith("validation")
        else [s for i, s in enumerate(stills) if i % 4]
    )
    features, labels, dolly = [], [], []
    for number in range(index * CLIPS_PER_FILE, (index + 1) * CLIPS_PER_FILE):
        found = render_clip(number, split, pictures, stills)
        if found is not None:
            features.append(found[0])
            labels.append(found[1])
            dolly.append(found[2])
    partial = path.with_suffix(".partial.npz")
    steps = np.array([len(f) for f in features])
    np.savez(partial, steps=steps, labels=labels, dolly=dolly,
             features=np.concatenate(features).reshape(-1, NUM_FEATURES))  # fmt: skip
    partial.replace(path)


@cache
def _pictures(folders: Folders) -> dict[str, list[Picture]]:
    return load_pictures(folders)


def main() -> None:
    parser = argparse.ArgumentParser(description="Render what the camera network learns from.")
    for name in ("out", "media", "wallpapers", "gcompris", "skimage"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=4000)
    parser.add_argument("--validation-clips", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    folders = Folders(arguments.media, arguments.wallpapers, arguments.gcompris, arguments.skimage)
    counts = {
        "validation": arguments.validation_clips,
        "validation_figures": arguments.validation_clips // 4,
        "train_figures": arguments.clips // 4,
        "train": arguments.clips,
    }
    tasks = [
        (arguments.out, split, index, folders)
        for split, count in counts.items()
        for index in range(-(-count // CLIPS_PER_FILE))
    ]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for done, _ in enumerate(pool.imap(write_file, tasks), start=1):
            print(f"{done} of {len(tasks)} files", flush=True)


if __name__ == "__main__":
    main()
