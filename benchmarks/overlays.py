"""Backgrounds for the overlay detector, and labelled clips to judge it on.

    python -m benchmarks.overlays pack --out B.zip --media M --film F --wallpapers W --gcompris G \
        --skimage S
    python -m benchmarks.overlays clips --out DIR --media M

`pack` writes the photographs and video frames that `python -m modeling.perception.overlays` trains
on: only sources with a stated open licence, every fifth photograph and two videos held out to
choose thresholds. `clips` lays overlays over other photographs, moving beneath them, and adds
plain clips: such photographs without an overlay, and excerpts of videos whose labels name nothing
laid over them. Their boxes lie in gt/overlays.json: `python -m pipeline evaluate --only overlays`.
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
from PIL import Image, UnidentifiedImageError

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
_OTHER_FOLDERS = ("photos/imagededup", "photos/datajuicer", "photos/bsds500")
_CLIPS_PER_CLASS = 16
_PLAIN_CLIPS = 80
_REAL_LONG_SIDE_PX, _MIN_REAL_SIDE_PX, _MIN_REAL_FPS = 640, 200, 8.0
# Tags of the media's list: something is laid over the picture, or it is no picture of a camera.
_LAID_OVER = (
    "boxes", "collage", "fixture", "format_fixture", "generated", "letterbox", "logo", "montage",
    "overlay", "pillarbox", "pillarbox_like", "screen", "subtitles", "synthetic", "testcard",
    "text", "watermark", "one_frame", "broken", "corrupt",
)  # fmt: skip
# Seen by eye, though no tag says so: two logos, a watermark, and drawings beside the picture.
_SEEN_OVERLAYS = (
    "videos/panda70m/YemkZ7DLOBU.15.mp4",
    "videos/panda70m/aQApNfoJ4ls.12.mp4",
    "videos/panda70m/3blNgn1nul0.0.mp4",
    "videos/askanything/jesse_dance.mp4",
)
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
        frames, truths, source = _overlaid(rng, kind, photos)
        _encode(out / name, frames, int(rng.integers(20, 33)))
        rows = [_rows(truth) for truth in truths]
        labels[name] = {"kind": kind, "set": "overlaid", "source": source, "frames": rows}
    plain = itertools.chain(_plain(media, photos), _real(media))
    for index, (origin, source, frames) in enumerate(plain):
        name = f"videos/overlays/plain-{index:04d}.mp4"
        _encode(out / name, frames, 23)
        rows = [[] for _ in frames]
        labels[name] = {"kind": None, "set": origin, "source": source, "frames": rows}
    (out / LABEL_FILE).write_text(json.dumps(labels, indent=1) + "\n")
    _log.info("%d clips in %s", len(labels), out)


def _overlaid(
    rng: np.random.Generator, kind: str, photos: list[Picture]
) -> tuple[list[Picture], list[Truth], str]:
    """One kind over photographs that drift, named by the first; every third clip rests."""
    layout = LAYOUTS[kind](rng, _CLIP_HW) if kind in LAYOUTS else None
    marks = () if layout else tuple(draw_marks(rng, kind, _CLIP_HW, "held_out"))
    recipe = Recipe(_CLIP_HW, layout, marks)
    chosen = rng.choice(len(photos), recipe.num_pictures, replace=recipe.num_pictures > len(photos))
    paths = [_drift(rng, photos[int(i)]) for i in chosen]
    moments = (np.arange(_CLIP_FRAMES) + 0.5) / _CLIP_FRAMES
    painted = [recipe.paint([next(path) for path in paths], float(moment)) for moment in moments]
    images, truths = zip(*painted, strict=True)
    return list(images), list(truths), f"photograph {int(chosen[0])}"


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


def _plain(media: Path, photos: list[Picture]) -> Iterator[tuple[str, str, list[Picture]]]:
    """Drifting photographs without an overlay, some of them with natural text."""
    rng = np.random.default_rng([_SEED, 1 << 20])
    texts = [_read(path) for path in sorted((media / _TEXT_FOLDER).iterdir())]
    pool = [("photograph", photo) for photo in photos] + [("natural text", t) for t in texts]
    for folder in _OTHER_FOLDERS:
        for path in sorted((media / folder).iterdir()):
            try:
                photo = _read(path)
            except UnidentifiedImageError:  # the media holds broken files on purpose
                continue
            if min(photo.shape[:2]) >= _MIN_REAL_SIDE_PX:
                pool.append(("photograph", photo))
    for index in range(_PLAIN_CLIPS):
        origin, photo = pool[index % len(pool)]
        drift = _drift(rng, photo)
        frames = [cover(next(drift), _CLIP_HW) for _ in range(_CLIP_FRAMES)]
        yield origin, f"{origin} {index % len(pool)}", frames


def _real(media: Path) -> Iterator[tuple[str, str, list[Picture]]]:
    """The first two seconds of each video that the networks did not see, of one shot or so."""
    learned = {source.path for source in TRAIN_VIDEOS}
    for line in (media / "media.jsonl").read_text().splitlines():
        row = json.loads(line)
        is_wanted = (
            row["kind"] == "video" and not row["error"]
            and row["name"] not in learned and row["name"] not in _SEEN_OVERLAYS
            and not set(row["tags"]) & set(_LAID_OVER)
            and (row["fps"] or 0) >= _MIN_REAL_FPS and (row["frames"] or 0) >= _CLIP_FRAMES
            and min(row["width"], row["height"]) >= _MIN_REAL_SIDE_PX
            and not any((row["measured"] or {}).get("border_tblr") or [1])
        )  # fmt: skip
        if is_wanted:
            yield "video", row["name"], _first_frames(media / row["name"], row["fps"])


def _first_frames(path: Path, fps: float) -> list[Picture]:
    """`_CLIP_FRAMES` at about `_CLIP_FPS`, or all that there are at that rate."""
    every = max(1, round(fps / _CLIP_FPS))
    with av.open(str(path)) as container:
        decoded = itertools.islice(container.decode(video=0), 0, _CLIP_FRAMES * every, every)
        images = [frame.to_ndarray(format="rgb24") for frame in decoded]
    height, width = images[0].shape[:2]
    scale = min(1.0, _REAL_LONG_SIDE_PX / max(height, width))
    size = (round(width * scale / 2) * 2, round(height * scale / 2) * 2)
    return [
        np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        for image in images
    ]


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
