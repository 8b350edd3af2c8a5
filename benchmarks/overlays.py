"""Backgrounds for the overlay detector, and labelled clips to judge it on.

    python -m benchmarks.overlays pack --out B.zip --media M --film F --wallpapers W --gcompris G \
        --skimage S
    python -m benchmarks.overlays clips --out DIR --media M

`pack` writes the photographs and video frames that `python -m modeling.perception.overlays` trains
on: only sources with a stated open licence, every fifth photograph and two videos held out to
choose thresholds. `clips` lays overlays over other photographs, moving beneath them, and adds
plain clips; their boxes lie in gt/overlays.json.
"""

import argparse
import io
import itertools
import json
import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import cv2
import numpy as np
from PIL import Image

from benchmarks.learn_data import TRAIN_IMAGES, TRAIN_VIDEOS, Source
from benchmarks.learn_photos import read_resource
from modeling.perception.overlays.backgrounds import Entry, write_backgrounds
from modeling.perception.overlays.classes import REPORTED
from modeling.perception.overlays.layouts import cover
from modeling.perception.overlays.marks import Picture
from modeling.perception.overlays.render import (
    LAYOUTS,
    Recipe,
    Truth,
    draw_marks,
)

LABEL_FILE = "gt/overlays.json"
_LONG_SIDE_PX = 800
_FRAME_LONG_SIDE_PX = 560
_FRAMES_PER_VIDEO = 24
_FILM_FRAMES = 120
_FILM_SHARE = 0.75  # then the credits begin
_HELD_OUT_VIDEOS = ("book.mkv", "nasa_13013.mp4")
_QUALITY = 88
_CLIP_FRAMES, _CLIP_FPS = 24, 12.0
_CLIP_HW = (360, 640)
_PHOTO_FOLDERS = ("photos/kodak",)
_TEXT_FOLDER = "photos/easyocr"
_CLIPS_PER_CLASS = 16
_PLAIN_CLIPS = 120
_SEED = 2026
_log = logging.getLogger(__name__)


def pack(folders: dict[str, Path], out: Path) -> None:
    size = write_backgrounds(out, _pictures(folders), _QUALITY)
    _log.info("%s: %.1f MB", out, size / 1e6)


def _pictures(folders: dict[str, Path]) -> Iterator[tuple[Entry, Picture]]:
    for source in TRAIN_IMAGES:
        group = f"{source.location}/{source.path}"
        split = "held_out" if zlib.crc32(group.encode()) % 5 == 0 else "train"
        name = f"photo-{zlib.crc32(group.encode()):08x}.jpg"
        yield Entry(name, group, split, source.licence), _photo(folders, source)
    for source in TRAIN_VIDEOS:
        split = "held_out" if source.path.endswith(_HELD_OUT_VIDEOS) else "train"
        is_film = source.location == "film"
        wanted, share = (_FILM_FRAMES, _FILM_SHARE) if is_film else (_FRAMES_PER_VIDEO, 1.0)
        path = folders[source.location] / source.path
        for index, frame in enumerate(_spread_frames(path, wanted, share)):
            name = f"frame-{zlib.crc32(source.path.encode()):08x}-{index:04d}.jpg"
            yield Entry(name, f"{source.location}/{source.path}", split, source.licence), frame


def _photo(folders: dict[str, Path], source: Source) -> Picture:
    if source.location == "gcompris":
        data = read_resource(folders["gcompris"], source.path)
    else:
        data = (folders[source.location] / source.path).read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((_LONG_SIDE_PX, _LONG_SIDE_PX))
        return np.asarray(image.convert("RGB"), np.uint8)


def _spread_frames(path: Path, wanted: int, share: float) -> Iterator[Picture]:
    """Frames that carry a picture, at equal distances over this share of the video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        length = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        length = round(length * share)
        container.seek(0)
        step = max(1, length // (wanted + 1))
        taken = 0
        for number, frame in enumerate(container.decode(stream)):
            if number % step != step // 2 or taken >= wanted:
                continue
            scale = min(1.0, _FRAME_LONG_SIDE_PX / max(frame.width, frame.height))
            width, height = round(frame.width * scale), round(frame.height * scale)
            small = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
            image = np.asarray(small.to_ndarray(), np.uint8)
            if image.std() > 12:
                taken += 1
                yield image


def write_clips(media: Path, out: Path) -> None:
    """Clip N is the same on every machine with the same media."""
    (out / "videos/overlays").mkdir(parents=True, exist_ok=True)
    (out / LABEL_FILE).parent.mkdir(parents=True, exist_ok=True)
    photos = [
        _read(path) for folder in _PHOTO_FOLDERS for path in sorted((media / folder).iterdir())
    ]
    labels: dict[str, dict[str, object]] = {}
    for number, kind in enumerate(itertools.chain(*[REPORTED] * _CLIPS_PER_CLASS)):
        rng = np.random.default_rng([_SEED, number])
        name = f"videos/overlays/{number:04d}-{kind}.mp4"
        frames, truths = _overlaid(rng, kind, photos)
        _encode(out / name, frames, int(rng.integers(20, 33)))
        labels[name] = {"kind": kind, "frames": [_rows(truth) for truth in truths]}
    for index, (source, frames) in enumerate(_plain(media, photos)):
        name = f"videos/overlays/plain-{index:04d}.mp4"
        _encode(out / name, frames, 23)
        labels[name] = {"kind": None, "source": source, "frames": [[] for _ in frames]}
    (out / LABEL_FILE).write_text(json.dumps(labels, indent=1) + "\n")
    _log.info("%d clips in %s", len(labels), out)


def _overlaid(
    rng: np.random.Generator, kind: str, photos: list[Picture]
) -> tuple[list[Picture], list[Truth]]:
    """One kind over photographs that drift; every third clip rests."""
    layout = LAYOUTS[kind](rng, _CLIP_HW) if kind in LAYOUTS else None
    marks = () if layout else tuple(draw_marks(rng, kind, _CLIP_HW, "held_out"))
    recipe = Recipe(_CLIP_HW, layout, marks)
    chosen = rng.choice(len(photos), recipe.num_pictures, replace=recipe.num_pictures > len(photos))
    paths = [_drift(rng, photos[int(i)]) for i in chosen]
    moments = (np.arange(_CLIP_FRAMES) + 0.5) / _CLIP_FRAMES
    painted = [recipe.paint([next(path) for path in paths], float(moment)) for moment in moments]
    return [image for image, _ in painted], [truth for _, truth in painted]


def _drift(rng: np.random.Generator, photo: Picture) -> Iterator[Picture]:
    """A window that moves over the photograph at up to a fifth of its width in the clip."""
    height, width = photo.shape[:2]
    share = rng.uniform(0.55, 0.75)
    reach = 0.0 if rng.random() < 1 / 3 else rng.uniform(0.05, 0.2)
    angle = rng.uniform(0, 2 * np.pi)
    start = rng.uniform(0.25, 0.75, 2)
    for index in itertools.count():
        way = reach * (index / _CLIP_FRAMES - 0.5) * np.array([np.cos(angle), np.sin(angle)])
        middle = np.clip(start + way, share / 2, 1 - share / 2) * (width, height)
        size = (round(share * width), round(share * height))
        yield np.asarray(
            cv2.getRectSubPix(photo, size, (float(middle[0]), float(middle[1]))), np.uint8
        )


def _plain(media: Path, photos: list[Picture]) -> Iterator[tuple[str, list[Picture]]]:
    """Clips without an overlay: drifting photographs, and videos that nobody marked."""
    rng = np.random.default_rng([_SEED, 1 << 20])
    texts = [_read(path) for path in sorted((media / _TEXT_FOLDER).iterdir())]
    pool = [("photograph", photo) for photo in photos] + [("text", photo) for photo in texts]
    others = [
        _read(path)
        for folder in ("photos/imagededup", "photos/datajuicer", "photos/bsds500")
        for path in sorted((media / folder).iterdir())
    ]
    pool += [("photograph", photo) for photo in others if min(photo.shape[:2]) >= 200]
    for index in range(_PLAIN_CLIPS):
        source, photo = pool[index % len(pool)]
        path = _drift(rng, photo)
        yield source, [cover(next(path), _CLIP_HW) for _ in range(_CLIP_FRAMES)]


def _rows(truth: Truth) -> list[dict[str, object]]:
    names = [*REPORTED, "scene_text"]
    return [
        {"kind": names[label], "box": [round(float(v), 5) for v in box], "ignore": bool(ignored)}
        for box, label, ignored in zip(truth.boxes_N4, truth.labels_N, truth.ignored_N, strict=True)
    ]


def _read(path: Path) -> Picture:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def _encode(path: Path, frames: list[Picture], crf: int) -> None:
    with av.open(str(path), "w") as container:
        options = {"crf": str(crf), "preset": "fast", "threads": "1"}
        stream = container.add_stream("libx264", rate=int(_CLIP_FPS), options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    clips = commands.add_parser("clips")
    for command in (packing, clips):
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--media", type=Path, required=True)
    for folder in ("film", "wallpapers", "gcompris", "skimage"):
        packing.add_argument(f"--{folder}", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.command == "clips":
        write_clips(arguments.media, arguments.out)
        return
    names = ("film", "wallpapers", "gcompris", "skimage", "media")
    pack({name: getattr(arguments, name) for name in names}, arguments.out)


if __name__ == "__main__":
    main()
