"""The media of `benchmarks/learn.py`: one small bundle that a machine without internet can read.

`prepare` (needs PyAV and the media) cuts the permissive sources down to 288 rows and re-encodes
them; held-out sources become 256 x 256 clips, nearly lossless (H.264 4:4:4, CRF 8).
`TrainingMedia` and `HeldOut` read the bundle with OpenCV, Pillow and numpy only. Training and
held-out media never share a source file.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

import io
import itertools
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.learn_photos import GCOMPRIS, WALLPAPERS, read_resource
from modeling.vae_loss import draw_frame_interval

logger = logging.getLogger(__name__)

TRAIN_ROWS = 288
HELD_OUT_SIDE = 256
HELD_OUT_FRAMES = 17
_PIECE_FRAMES = 240
_CUT_LEVELS = 18.0  # mean grey change between neighbouring frames that counts as a cut


@dataclass(frozen=True)
class Source:
    """One media file. `location` is a key of `prepare`'s folders and a path below it."""

    location: str
    path: str
    licence: str
    caption: str
    every: int = 1  # of the 10-second pieces of the video, keep one in so many


# Only media with a stated open licence may reach the weights.
TRAIN_VIDEOS = (
    Source(
        "film",
        "bbb.mp4",
        "CC-BY-3.0 Blender Foundation",
        "A cartoon rabbit in a sunny meadow.",
        every=3,
    ),
    Source(
        "media",
        "videos/mdn/tears-of-steel-battle-clip-medium.webm",
        "CC-BY-3.0 Blender Foundation",
        "Soldiers fight robots in a ruined city.",
    ),
    Source(
        "media",
        "videos/intel_iot/car-detection.mp4",
        "CC-BY-4.0 Intel",
        "Cars drive on a road, seen from above.",
    ),
    Source(
        "media",
        "videos/intel_iot/bottle-detection.mp4",
        "CC-BY-4.0 Intel",
        "A hand reaches for bottles on a table.",
    ),
    Source("media", "videos/intel_iot/again.mkv", "CC-BY-4.0 Intel", "A man makes a hand sign."),
    Source("media", "videos/intel_iot/help.mkv", "CC-BY-4.0 Intel", "A man lifts one hand."),
    Source("media", "videos/intel_iot/milk.mkv", "CC-BY-4.0 Intel", "A man closes his fist."),
    Source("media", "videos/intel_iot/book.mkv", "CC-BY-4.0 Intel", "A woman opens her hands."),
    Source("media", "videos/intel_iot/walk.mkv", "CC-BY-4.0 Intel", "A woman waves both hands."),
    Source(
        "media", "videos/torchcodec/nasa_13013.mp4", "public domain NASA", "A laboratory in space."
    ),
)
TRAIN_IMAGES = (
    *(
        Source("skimage", f"{name}", "CC0 or public domain (scikit-image)", caption)
        for name, caption in (
            ("astronaut.png", "A smiling astronaut in an orange suit."),
            ("chelsea.png", "The face of a ginger cat."),
            ("coffee.png", "A cup of coffee on a wooden table."),
            ("rocket.jpg", "A rocket on its launch pad at night."),
            ("hubble_deep_field.jpg", "Galaxies in the dark sky."),
            ("grass.png", "Grass, in black and white."),
            ("gravel.png", "Gravel, in black and white."),
            ("brick.png", "A brick wall, in black and white."),
            ("camera.png", "A man with a camera, in black and white."),
        )
    ),
    *(
        Source(
            "media",
            f"photos/mmocr_icdar15/img_{number}.jpg",
            "CC-BY-4.0 ICDAR 2015 Incidental Scene Text",
            "A street with signs.",
        )
        for number in range(1, 6)
    ),
    *(Source("wallpapers", name, licence, "A photograph.") for name, licence in WALLPAPERS.items()),
    *(
        Source("gcompris", name, f"{licence} (Debian gcompris-qt-data)", "A photograph.")
        for licence, names in GCOMPRIS.items()
        for name in names
    ),
)
HELD_OUT_VIDEOS = (
    Source("media", "videos/cosmoscurate/test_video_30s.mp4", "CC-BY-3.0 Blender Foundation", ""),
    Source("media", "videos/mdn/flower.mp4", "CC0 or permissive (MDN)", ""),
    Source("media", "videos/mdn/friday.mp4", "CC0 or permissive (MDN)", ""),
    Source("media", "videos/mdn/bug_video_640.mp4", "CC0 or permissive (MDN)", ""),
    Source("media", "videos/fastvideo/asset__ltx2.mp4", "Apache-2.0", ""),
)
HELD_OUT_IMAGES = (
    *(
        Source("media", f"photos/kodak/kodim{number}.png", "Kodak PhotoCD", "")
        for number in ("01", "03", "05", "07", "12", "15", "20", "23")
    ),
    Source("sklearn", "china.jpg", "CC-BY-2.0", ""),
    Source("sklearn", "flower.jpg", "CC-BY-2.0", ""),
)
_HELD_OUT_CLIPS_PER_VIDEO = 3


def _decode(path: Path, rows: int | None, every: int = 1) -> Iterator[NDArray[np.uint8]]:
    import av  # the machine that trains has no PyAV

    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for index, frame in enumerate(container.decode(video=0)):
            if index // _PIECE_FRAMES % every:
                continue
            if rows is None or frame.height <= rows:
                yield np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
                continue
            width = round(frame.width * rows / frame.height / 16) * 16
            small = frame.reformat(width=width, height=rows, format="rgb24", interpolation="AREA")
            yield np.asarray(small.to_ndarray(), dtype=np.uint8)


def _encode(
    frames: Iterator[NDArray[np.uint8]],
    path: Path,
    *,
    crf: int,
    every: int = 1,
    pix_fmt: str = "yuv420p",
) -> list[int]:
    """Write H.264 and return the cuts: every frame that begins a new shot, but the first."""
    import av

    cuts: list[int] = []
    before: NDArray[np.float32] | None = None
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=24, options={"crf": str(crf), "preset": "fast", "threads": "1"}
        )
        stream.pix_fmt = pix_fmt
        for index, image in enumerate(frames):
            even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
            grey = even[::8, ::8].mean(2, dtype=np.float32)
            is_join = every > 1 and index % _PIECE_FRAMES == 0
            changed = before is not None and float(np.abs(grey - before).mean()) > _CUT_LEVELS
            if index > 0 and (is_join or changed):
                cuts.append(index)
            before = grey
            if index == 0:
                stream.height, stream.width = even.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return cuts


def _square(frames_THWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle square inside black bars, at 256 x 256 (area resampling)."""
    import cv2

    peak_HW = frames_THWC.max((0, 3))
    rows = np.flatnonzero(np.percentile(peak_HW, 90, axis=1) > 32)
    columns = np.flatnonzero(np.percentile(peak_HW, 90, axis=0) > 32)
    inside = frames_THWC[:, rows[0] + 2 : rows[-1] - 1, columns[0] + 2 : columns[-1] - 1]
    height, width = inside.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = inside[:, top : top + side, left : left + side]
    size = (HELD_OUT_SIDE, HELD_OUT_SIDE)
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in square])


def _held_out_clips(path: Path) -> list[NDArray[np.uint8]]:
    """Clips of 17 neighbouring frames without a cut or a black frame, spread over the file."""
    frames = list(_decode(path, None))
    greys = [f[::8, ::8].mean(2) for f in frames]
    clips: list[NDArray[np.uint8]] = []
    for part in range(_HELD_OUT_CLIPS_PER_VIDEO):
        first = len(frames) * part // _HELD_OUT_CLIPS_PER_VIDEO
        last = len(frames) * (part + 1) // _HELD_OUT_CLIPS_PER_VIDEO - HELD_OUT_FRAMES
        for start in range(first, last):
            window = greys[start : start + HELD_OUT_FRAMES]
            steps = [float(np.abs(b - a).mean()) for a, b in itertools.pairwise(window)]
            if max(steps) < _CUT_LEVELS / 2 and min(float(g.std()) for g in window) > 20:
                clips.append(_square(np.stack(frames[start : start + HELD_OUT_FRAMES])))
                break
    return clips


def prepare(bundle: Path, folders: dict[str, Path], *, crf: int = 21) -> None:
    """Write the bundle. `folders`: where `film`, `media`, `skimage` and `sklearn` files lie."""
    from PIL import Image

    (bundle / "train").mkdir(parents=True, exist_ok=True)
    listing: list[dict[str, object]] = []
    for number, source in enumerate((*TRAIN_VIDEOS, *TRAIN_IMAGES)):
        path = folders[source.location] / source.path
        is_video = source in TRAIN_VIDEOS
        name = f"train/{number:02d}" + (".mp4" if is_video else ".jpg")
        cuts: list[int] = []
        if is_video:
            cuts = _encode(
                _decode(path, TRAIN_ROWS, source.every), bundle / name, crf=crf, every=source.every
            )
        else:
            packed = source.location == "gcompris"
            content = read_resource(folders["gcompris"], source.path) if packed else None
            picture = Image.open(path if content is None else io.BytesIO(content)).convert("RGB")
            longest = 1600 if source.location == "wallpapers" else 576
            picture.thumbnail((longest, longest), Image.Resampling.BOX)
            picture.save(bundle / name, quality=95, subsampling=0)
        listing.append(
            {
                "file": name,
                "source": source.path,
                "licence": source.licence,
                "caption": source.caption,
                "cuts": cuts,
            }
        )
        logger.info("%s: %d bytes", name, (bundle / name).stat().st_size)
    clips = [c for s in HELD_OUT_VIDEOS for c in _held_out_clips(folders[s.location] / s.path)]
    photos = [
        _square(next(_decode(folders[s.location] / s.path, None))[None]) for s in HELD_OUT_IMAGES
    ]
    np.savez_compressed(bundle / "held_out_photos.npz", photos_NTHWC=np.stack(photos))
    _encode(iter(np.concatenate(clips)), bundle / "held_out_clips.mp4", crf=8, pix_fmt="yuv444p")
    held_out = [s.path for s in (*HELD_OUT_VIDEOS, *HELD_OUT_IMAGES)]
    (bundle / "sources.json").write_text(
        json.dumps({"train": listing, "held_out": held_out}, indent=1) + "\n"
    )


def prepare_captions(bundle: Path) -> None:
    """Add the encoded captions of the bundle's sources; the last one is the empty caption."""
    from safetensors.torch import save_file

    from modeling.text_encoder import TextEncoder, TextEncoderConfig

    listing = json.loads((bundle / "sources.json").read_text())["train"]
    encoder = TextEncoder(TextEncoderConfig())
    encoded = encoder([*(entry["caption"] for entry in listing), ""], allow_empty=True)
    save_file(
        {
            "states_NLD": encoded.states_BLD.half().contiguous(),
            "lengths_N": encoded.lengths_B,
            "pooled_ND": encoded.pooled_BD.half().contiguous(),
        },
        bundle / "text.safetensors",
        metadata={"text_encoder": encoder.fingerprint},
    )


@dataclass(frozen=True)
class HeldOut:
    """Clips and photos of sources that training never saw: (1, C, T, 256, 256) in [-1, 1]."""

    clips: list[Tensor]
    photos: list[Tensor]

    @classmethod
    def read(cls, bundle: Path, device: torch.device) -> "HeldOut":
        with np.load(bundle / "held_out_photos.npz") as arrays:
            photos_NTCHW = torch.from_numpy(arrays["photos_NTHWC"]).permute(0, 1, 4, 2, 3)
        clips_TCHW = _read_video(bundle / "held_out_clips.mp4", device)

        def to_video(frames_TCHW: Tensor) -> Tensor:
            return frames_TCHW.to(device).transpose(0, 1)[None].float() / 127.5 - 1

        return cls(
            [to_video(clip) for clip in torch.split(clips_TCHW, HELD_OUT_FRAMES)],
            [to_video(photo) for photo in photos_NTCHW],
        )


@dataclass(frozen=True)
class _Shot:
    source: int
    frames_TCHW: Tensor  # uint8
    weight: float  # how often it is drawn

    def fits(self, num_frames: int, side: int) -> bool:
        frames, _, height, width = self.frames_TCHW.shape
        return frames >= num_frames and min(height, width) >= side


class TrainingMedia:
    """Random crops of the training media, decoded once and kept on the device as uint8.

    Every shot is there at full and at half size, every photo down to a quarter: smaller pictures
    show more content a pixel.
    """

    def __init__(self, bundle: Path, device: torch.device, seed: int = 0) -> None:
        listing = json.loads((bundle / "sources.json").read_text())["train"]
        self.captions = [str(entry["caption"]) for entry in listing]
        self._torch_generator = torch.Generator().manual_seed(seed)
        self._generator = np.random.default_rng(seed)
        self._shots: list[_Shot] = []
        self._photos: list[_Shot] = []
        self.num_frames = 0
        for number, entry in enumerate(listing):
            path = bundle / entry["file"]
            if path.suffix != ".mp4":
                photo = _read_photo(path)[None].to(device)
                weight = (photo.shape[2] * photo.shape[3]) ** 0.5
                self._photos += _pyramid(_Shot(number, photo, weight), num_halvings=2)
                continue
            frames_TCHW = _read_video(path, device)
            bounds = [0, *entry["cuts"], len(frames_TCHW)]
            for a, b in itertools.pairwise(bounds):
                if b - a > HELD_OUT_FRAMES + 2:
                    piece = frames_TCHW[a + 1 : b - 1]  # a frame off each end: soft cuts
                    self.num_frames += len(piece)
                    # Between frames and shots: one long film must not be everything.
                    shot = _Shot(number, piece, len(piece) ** 0.75)
                    self._shots += _pyramid(shot, num_halvings=1)
        self._fitting: dict[tuple[int, int, bool], tuple[list[_Shot], NDArray[np.float64]]] = {}

    def batch(
        self, batch_size: int, num_frames: int, side: int, *, max_interval: int = 8
    ) -> tuple[Tensor, list[int]]:
        """(B, 3, T, side, side) in [-1, 1] and each clip's source number.

        One frame gives photos and single film frames, half and half.
        """
        num_photos = batch_size // 2 if num_frames == 1 else 0
        shots = self._draw(num_photos, 1, side, are_photos=True)
        shots += self._draw(batch_size - num_photos, num_frames, side, are_photos=False)
        crops = [self._crop(shot, num_frames, side, max_interval) for shot in shots]
        video = torch.stack(crops).transpose(1, 2).float() / 127.5 - 1
        mirrored = torch.cat([video[0::2].flip(4), video[1::2]])
        return mirrored, [s.source for s in (*shots[0::2], *shots[1::2])]

    def _draw(self, count: int, num_frames: int, side: int, *, are_photos: bool) -> list[_Shot]:
        key = (num_frames, side, are_photos)
        if key not in self._fitting:
            pool = self._photos if are_photos else self._shots
            fitting = [shot for shot in pool if shot.fits(num_frames, side)]
            self._fitting[key] = (fitting, np.cumsum([shot.weight for shot in fitting]))
        fitting, reach = self._fitting[key]
        drawn = np.searchsorted(reach, self._generator.random(count) * reach[-1])
        return [fitting[index] for index in drawn]

    def _crop(self, shot: _Shot, num_frames: int, side: int, max_interval: int) -> Tensor:
        frames_TCHW = shot.frames_TCHW
        num_available, _, height, width = frames_TCHW.shape
        start, interval = draw_frame_interval(
            num_available, num_frames, max_interval=max_interval, generator=self._torch_generator
        )
        top = int(self._generator.integers(height - side + 1))
        left = int(self._generator.integers(width - side + 1))
        stop = start + (num_frames - 1) * interval + 1
        return frames_TCHW[start:stop:interval, :, top : top + side, left : left + side]


def _pyramid(shot: _Shot, num_halvings: int) -> list[_Shot]:
    """The shot and its smaller copies, together as likely as the shot was, small ones more."""
    shots = [shot]
    for _ in range(num_halvings):
        parts = torch.split(shots[-1].frames_TCHW, 64)
        half = [torch.nn.functional.avg_pool2d(part.float(), 2).round().byte() for part in parts]
        shots.append(_Shot(shot.source, torch.cat(half), shot.weight))
    return shots


def _read_photo(path: Path) -> Tensor:
    from PIL import Image

    image_HWC = np.asarray(Image.open(path).convert("RGB"))
    return torch.from_numpy(image_HWC.copy()).permute(2, 0, 1)


def _read_video(path: Path, device: torch.device) -> Tensor:
    import cv2

    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        ok, image_HWC = capture.read()
        if not ok:
            break
        frames.append(torch.from_numpy(image_HWC))
    capture.release()
    if not frames:
        raise ValueError(f"OpenCV read no frame of {path}")
    frames_THWC = torch.stack(frames).to(device).flip(3)  # OpenCV's order is blue, green, red
    return frames_THWC.permute(0, 3, 1, 2).contiguous()
