"""Clips and edited copies of them, as trunk features: what the copy head learns from.

    python benchmarks/copy_looks.py --pictures B.zip --media DIR --film DIR --out DIR \
        --trunk WEIGHTS.pth [--workers 1]

B.zip holds pictures with a stated open licence (`python -m benchmarks.overlays pack`), the videos
are `TRAIN_VIDEOS` of benchmarks/learn_data.py. From a picture come three made scenes, each at two
moments: a window that moves over it, a cut-out of another picture that moves before it, or both at
rest. From a video come spans of it. Each clip is looked at as it is and as `NUM_COPIES` copies
(benchmarks/copy_edits.py), eight frames a look, as the embed pass takes them. One file per source,
drawn from its name (x264 may write a frame a little otherwise); a second call makes what is
missing.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from benchmarks.copy_edits import NUM_FRAMES, Images, Rng, Shown, centers, edited
from benchmarks.learn_data import TRAIN_VIDEOS, Source
from modeling.perception.embedding.trunk import export_trunk, load_trunk
from pipeline.evaluate.duplicate_clips import EvaluationClip, read_times
from pipeline.evaluate.perturbations import resize
from pipeline.onnx_model import open_session

NUM_COPIES = 5
SIDE_PX = 224
_SIZE_HW = (216, 384)
_SPAN_S = (1.2, 4.0)
_MAX_SPANS = 150
_SPANS_PER_VIDEO_SECOND = 0.3
_MIN_SD = 8.0
_DENSE = 48
_SCENES = 3  # made from each picture
_TRUNK = "trunk.onnx"


def picture_clips(rng: Rng, picture_HWC: Images, other_HWC: Images) -> Iterator[Shown]:
    """Two moments of one made clip: the same scene, other places of window and cut-out."""
    kind = ("rests", "window", "cut-out", "both")[int(rng.integers(4))]
    share = rng.uniform(0.4, 0.8)
    middle = rng.uniform(share / 2, 1 - share / 2, 2)
    side = int(rng.uniform(0.2, 0.55) * _SIZE_HW[0])
    square = min(other_HWC.shape[:2])
    patch = resize(other_HWC[None, :square, :square], (side, side))[0]
    mask = np.zeros((side, side), np.float32)
    axes = (max(2, int(side * rng.uniform(0.25, 0.48))), max(2, int(side * rng.uniform(0.3, 0.48))))
    cv2.ellipse(mask, (side // 2, side // 2), axes, 0, 0, 360, 1.0, -1)
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), 2), np.float32)
    for moment in range(2):
        way, zoom, path = np.zeros(2), 0.0, np.array([0.5, 0.5, 0.0, 0.0])
        if kind in ("window", "both"):
            way, zoom = rng.uniform(-0.12, 0.12, 2), rng.uniform(-0.15, 0.15)
            step = rng.uniform(-0.2, 0.2, 2) * moment
            middle = np.clip(middle + step, share / 2, 1 - share / 2)
        if kind in ("cut-out", "both"):
            path = np.array([*rng.uniform(0.2, 0.8, 2), *rng.uniform(-0.4, 0.4, 2)])
        sprite = (patch, mask) if kind in ("cut-out", "both") else None
        yield partial(_made_frames, picture_HWC, sprite, middle, share, way, zoom, path)


def _made_frames(
    picture_HWC: Images,
    sprite: tuple[Images, NDArray[np.float32]] | None,
    middle: NDArray[np.float64],
    share: float,
    way: NDArray[np.float64],
    zoom: float,
    path: NDArray[np.float64],
    moments_T: NDArray[np.float64],
) -> Images:
    height, width = picture_HWC.shape[:2]
    rows, columns = _SIZE_HW
    frames = []
    for moment in moments_T - 0.5:
        extent = min(0.95, share * (1 + zoom * moment))
        y, x = np.clip(middle + way * moment, extent / 2, 1 - extent / 2) - extent / 2
        window = np.array(
            [[extent * width / columns, 0, x * width], [0, extent * height / rows, y * height]]
        )
        flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
        frame = cv2.warpAffine(picture_HWC, window, (columns, rows), flags=flags)
        if sprite is not None:
            patch, mask = sprite
            at_y, at_x = path[:2] + path[2:] * moment
            shift = np.array(
                [
                    [1.0, 0, at_x * columns - mask.shape[1] / 2],
                    [0, 1.0, at_y * rows - mask.shape[0] / 2],
                ]
            )
            over = cv2.warpAffine(patch, shift, (columns, rows))
            weight = cv2.warpAffine(mask, shift, (columns, rows))[..., None]
            frame = np.round(frame * (1 - weight) + over * weight)
        frames.append(np.asarray(frame, np.uint8))
    return np.stack(frames)


def video_clips(rng: Rng, root: Path, source: Source) -> Iterator[Shown]:
    """Spans of the video, far enough apart to be other moments."""
    with av.open(str(root / source.path)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 25)
        duration_s = float(container.duration or 0) / av.time_base
    count = int(np.clip(duration_s * _SPANS_PER_VIDEO_SECOND, 1, _MAX_SPANS))
    for part in range(count):
        length_s = min(rng.uniform(*_SPAN_S), duration_s / count)
        begin_s = duration_s * part / count
        first, last = round(begin_s * fps), round((begin_s + length_s) * fps)
        if last - first >= NUM_FRAMES:
            dense = _read_densely(root, EvaluationClip(source.path, first, last, fps))
            if dense is not None:
                yield partial(_nearest, dense)


def _read_densely(root: Path, clip: EvaluationClip) -> Images | None:
    """`_DENSE` frames at even distances, so that no copy needs a decode of its own."""
    duration_s = (clip.end_frame - clip.start_frame) / clip.fps
    moments = np.linspace(0, 1, _DENSE, endpoint=False)
    times_s = [float(t) for t in clip.start_frame / clip.fps + moments * duration_s]
    shown = dict(read_times(root, clip, times_s))
    return np.stack([shown[t] for t in times_s]) if len(shown) == _DENSE else None


def _nearest(dense: Images, moments_T: NDArray[np.float64]) -> Images:
    nearest = np.clip(np.round(moments_T * _DENSE), 0, _DENSE - 1).astype(int)
    return np.asarray(dense[nearest], np.uint8)


def write_source(
    name: str, split: str, clips: Iterator[Shown], rng: Rng, trunk: InferenceSession, path: Path
) -> None:
    """looks: clips x (1 + NUM_COPIES) x T x 1280, fp16; the first look is the clip as it is."""
    looks = []
    for shown in clips:
        frames = shown(centers(0, 1))
        if max(float(f.std()) for f in frames) < _MIN_SD:
            continue
        views = [frames, *(edited(rng, shown) for _ in range(NUM_COPIES))]
        sized = [resize(view, (SIDE_PX, SIDE_PX)) for view in views]
        looks.append(np.stack([trunk.run(None, {"frames": view[None]})[0][0] for view in sized]))
    if looks:
        partial_path = path.with_suffix(".partial.npz")
        np.savez(partial_path, source=name, split=split, looks=np.stack(looks).astype(np.float16))
        partial_path.replace(path)


def _one(task: tuple[str, argparse.Namespace]) -> str:
    """`task`: the source's name, or the path of its video."""
    name, arguments = task
    path = arguments.out / f"{zlib.crc32(name.encode()):08x}.npz"
    if path.exists():
        return name
    cv2.setNumThreads(1)
    trunk = open_session(arguments.out / _TRUNK, provider="cpu", num_threads=1)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    pictures = _pictures(arguments.pictures)
    if name in pictures:
        names = [row["file"] for row in pictures.values()]
        picture = _read(arguments.pictures, pictures[name]["file"])
        others = [names[int(index)] for index in rng.integers(len(names), size=_SCENES)]
        scenes = [picture_clips(rng, picture, _read(arguments.pictures, n)) for n in others]
        clips: Iterator[Shown] = itertools.chain.from_iterable(scenes)
        split = pictures[name]["split"]
    else:
        source = next(s for s in TRAIN_VIDEOS if s.path == name)
        clips = video_clips(rng, getattr(arguments, source.location), source)
        split = "train"
    write_source(name, split, clips, rng, trunk, path)
    return name


@cache
def _pictures(file: Path) -> dict[str, dict[str, str]]:
    """Rows of photographs by source; frames of videos are left out, the videos come themselves."""
    with zipfile.ZipFile(file) as archive:
        rows = json.loads(archive.read("pictures.json"))
    return {row["group"]: row for row in rows if row["file"].startswith("photo-")}


def _read(file: Path, name: str) -> Images:
    with zipfile.ZipFile(file) as archive:
        data = np.frombuffer(archive.read(name), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("pictures", "media", "film", "trunk", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not (arguments.out / _TRUNK).exists():
        export_trunk(load_trunk(arguments.trunk), arguments.out / _TRUNK)
    names = [*(s.path for s in TRAIN_VIDEOS), *_pictures(arguments.pictures)]
    tasks = [(name, arguments) for name in names]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for done, name in enumerate(pool.imap_unordered(_one, tasks), start=1):
            print(f"{done} of {len(tasks)}: {name}", flush=True)


if __name__ == "__main__":
    main()
