"""Renders hard shot boundaries, and what looks like one, from real shots: true by construction.

The shots come from labelled videos of permissive licence (`licence_class` in the media list), cut
at their labels, the whip pans from photographs. Each rendering goes through H.264.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.duplicate_clips import MEDIA_LIST
from pipeline.evaluate.figures import EvaluationError
from pipeline.evaluate.motion import PHOTO_FOLDER, CameraMotion, render_motion
from pipeline.evaluate.shot_labels import CUTS_FILE, GRADUAL_FILE
from pipeline.media.config import MediaLimits
from pipeline.media.image import open_image
from pipeline.media.video import open_video

Half = Literal["tuned", "unseen"]
Images = NDArray[np.uint8]  # T x H x W x 3, RGB
SIZE_HW = (180, 320)
FPS = 24
_UNSEEN_FOLDERS = ("videos/mdn/", "videos/cosmoscurate/")  # no film of theirs is in the others
_NO_CAMERA_TAGS = {"testcard", "synthetic"}
_MIN_SIDE_PX = 170
_MIN_FPS = 12
_MIN_SHOT_FRAMES = 56
_MAX_SHOTS = 6  # of one file
_EDGE_FRAMES = 3  # of a shot's own ends that are not shown
_MIN_LUMA_SD = 15.0  # of every frame looked at: titles on black and blank stretches have less
_HALVES: tuple[tuple[Half, bool], ...] = (("tuned", False), ("unseen", True))
_CRF = ("20", "26", "32")


@dataclass(frozen=True, slots=True)
class Shot:
    """Frames `start` to `end` of a file without any boundary inside."""

    name: str
    start: int
    end: int
    fps: float
    is_still: bool  # the camera

    @property
    def collection(self) -> str:
        return str(Path(self.name).parent)

    @property
    def num_frames(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Sources:
    """What one half of the renderings may be made of."""

    media: Path
    shots: tuple[Shot, ...]
    photos: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Rendering:
    """`cuts`: first frames of new shots; `gradual`: first and last frame that mixes two shots."""

    frames: Images
    cuts: tuple[int, ...] = ()
    gradual: tuple[tuple[int, int], ...] = ()


Draw = Callable[[np.random.Generator, Sources, int], Rendering]


def list_sources(media: Path) -> dict[Half, Sources]:
    """Shots and photographs of either half. Raises EvaluationError where one has too few shots."""
    shots = [shot for shot in _shots(media) if _is_lit(media, shot)]
    photos = sorted((media / PHOTO_FOLDER).iterdir())
    halves: dict[Half, Sources] = {}
    for half, is_unseen in _HALVES:
        own = tuple(s for s in shots if s.name.startswith(_UNSEEN_FOLDERS) == is_unseen)
        if len({shot.name for shot in own}) < 2:
            raise EvaluationError(f"{media}: fewer than two {half} videos to render from")
        halves[half] = Sources(media, own, tuple(photos[int(is_unseen) :: 2]))
    return halves


def render(case: str, sources: Sources, index: int) -> Rendering:
    """The `index`-th rendering of a case; the same arguments give the same frames."""
    rng = np.random.default_rng([2026, list(CASES).index(case), index])
    return CASES[case](rng, sources, index)


def encode(frames: Images, path: Path, index: int) -> None:
    """As H.264 of one of three qualities in turn."""
    with av.open(str(path), "w") as container:
        options = {"crf": _CRF[index % len(_CRF)], "preset": "veryfast", "threads": "1"}
        stream = container.add_stream("libx264", rate=Fraction(FPS), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _shots(media: Path) -> Iterator[Shot]:
    """The longest shots of every fitting video; files of the same picture count once."""
    cuts: Mapping[str, Any] = json.loads((media / CUTS_FILE).read_text())
    gradual: Mapping[str, Any] = json.loads((media / GRADUAL_FILE).read_text())
    seen: set[tuple[str, int]] = set()
    for line in (media / MEDIA_LIST).read_text().splitlines():
        row = json.loads(line)
        name = str(row["name"])
        label = (cuts.get(name) or {}).get("cuts")
        if row["kind"] != "video" or row["licence_class"] != "permissive" or label is None:
            continue
        if min(row["width"], row["height"]) < _MIN_SIDE_PX or (row["fps"] or 0) < _MIN_FPS:
            continue
        picture = (str(Path(name).parent), int(row["frames"] or 0))
        if _NO_CAMERA_TAGS & set(row["tags"]) or picture in seen:
            continue
        seen.add(picture)
        covered = [(first, last + 1) for first, last in gradual.get(name, ())]
        edges = sorted({0, row["frames"], *label, *(edge for span in covered for edge in span)})
        spans = [
            (start + _EDGE_FRAMES, end - _EDGE_FRAMES)
            for start, end in pairwise(edges)
            if not any(first <= start < after for first, after in covered)
        ]
        longest = sorted(spans, key=lambda span: span[0] - span[1])[:_MAX_SHOTS]
        for start, end in sorted(longest):
            if end - start >= _MIN_SHOT_FRAMES:
                yield Shot(name, start, end, float(row["fps"]), row["camera"] == "static")


def _is_lit(media: Path, shot: Shot) -> bool:
    """Whether it shows a picture from its first frame to its last."""
    stride = max(1, (shot.num_frames - 1) // 8)
    frames = _read(media, shot, 0, (shot.num_frames - 1) // stride + 1, stride)
    luma = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in frames]
    return min(float(image.std()) for image in luma) >= _MIN_LUMA_SD


def _read(media: Path, shot: Shot, first: int, num_frames: int, stride: int = 1) -> Images:
    """Frames from `first` of the shot on, cropped to 16:9."""
    height, width = SIZE_HW
    start = shot.start + first
    with open_video((media / shot.name).absolute().as_uri(), MediaLimits()) as reader:
        scale = max(height / reader.display_size[0], width / reader.display_size[1])
        full_HW = (
            max(height, round(reader.display_size[0] * scale)),
            max(width, round(reader.display_size[1] * scale)),
        )
        top, left = (full_HW[0] - height) // 2, (full_HW[1] - width) // 2
        return np.stack(
            [
                frame.image[top : top + height, left : left + width]
                for frame in reader.frames(
                    size_HW=full_HW,
                    start=(start, start / shot.fps),
                    end_frame=start + (num_frames - 1) * stride + 1,
                    stride=stride,
                )
            ]
        )


def _piece(rng: np.random.Generator, sources: Sources, shot: Shot, num_frames: int) -> Images:
    first = int(rng.integers(0, max(1, shot.num_frames - num_frames)))
    return _read(sources.media, shot, first, min(num_frames, shot.num_frames))


def _pick(rng: np.random.Generator, shots: Sequence[Shot]) -> Shot:
    """Of any file with the same chance, however many shots it has."""
    names = sorted({shot.name for shot in shots})
    name = names[int(rng.integers(len(names)))]
    of_name = [shot for shot in shots if shot.name == name]
    return of_name[int(rng.integers(len(of_name)))]


def _pair(rng: np.random.Generator, sources: Sources, num_frames: int) -> tuple[Images, Images]:
    """Pieces of two files."""
    first = _pick(rng, sources.shots)
    second = _pick(rng, [shot for shot in sources.shots if shot.name != first.name])
    return _piece(rng, sources, first, num_frames), _piece(rng, sources, second, num_frames)


def _cut(rng: np.random.Generator, sources: Sources, index: int) -> Rendering:
    first, second = _pair(rng, sources, int(rng.integers(36, 50)))
    return Rendering(np.concatenate([first, second]), cuts=(len(first),))


def _jump_cut(rng: np.random.Generator, sources: Sources, index: int) -> Rendering:
    """A second or more left out before one background; every other one is also framed closer."""
    still = [s for s in sources.shots if s.is_still]
    shot = _pick(rng, still)
    room = shot.num_frames
    length = min(40, room // 3)
    frames = _read(sources.media, shot, int(rng.integers(0, max(1, room - 160))), min(160, room))
    first = frames[:length]
    # Of the possible ends of what is left out, the one that changes the picture most.
    starts = range(length + min(24, room - 2 * length), len(frames) - length + 1)
    start = max(starts, key=lambda s: float(np.abs(frames[s] - first[-1].astype(int)).mean()))
    second = frames[start : start + length]
    if index % 2 == 0:
        second = np.stack([_closer(image, 1.0 / rng.uniform(1.15, 1.4)) for image in second])
    return Rendering(np.concatenate([first, second]), cuts=(length,))


def _closer(image: Images, share: float) -> Images:
    height, width = (round(side * share) for side in SIZE_HW)
    top, left = (SIZE_HW[0] - height) // 3, (SIZE_HW[1] - width) // 2
    part = image[top : top + height, left : left + width]
    return np.asarray(cv2.resize(part, SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def _similar_shots(rng: np.random.Generator, sources: Sources, index: int) -> Rendering:
    """Two shots of one film, or of one place."""
    first = _pick(rng, sources.shots)
    others = [s for s in sources.shots if s.name == first.name and s.start != first.start]
    others = others or [
        s for s in sources.shots if s.collection == first.collection and s.name != first.name
    ]
    second = _pick(rng, others or [s for s in sources.shots if s != first])
    pieces = [_piece(rng, sources, shot, 44) for shot in (first, second)]
    return Rendering(np.concatenate(pieces), cuts=(len(pieces[0]),))


def _quick_cuts(rng: np.random.Generator, sources: Sources, index: int) -> Rendering:
    """Six shots of a third to two thirds of a second."""
    shots = [_pick(rng, sources.shots)]
    while len(shots) < 6:
        shots.append(_pick(rng, [s for s in sources.shots if s.name != shots[-1].name]))
    pieces = [_piece(rng, sources, shot, int(rng.integers(8, 17))) for shot in shots]
    ends = np.cumsum([len(piece) for piece in pieces])
    return Rendering(np.concatenate(pieces), cuts=tuple(int(end) for end in ends[:-1]))


def _mixed(first: Images, second: Images, second_share_THW: NDArray[np.float64]) -> Rendering:
    """`second_share` has a frame for each one of the transition, in which both shots go on."""
    num = len(second_share_THW)
    share = second_share_THW[..., None]
    mixed = first[len(first) - num :] * (1 - share) + second[:num] * share
    frames = np.concatenate([first[:-num], np.round(mixed).astype(np.uint8), second[num:]])
    return Rendering(frames, gradual=((len(first) - num, len(first) - 1),))


def _dissolve(rng: np.random.Generator, sources: Sources, index: int) -> Rendering:
    num = (12, 24, 6, 40, 16, 32)[index % 6]
    first, second = _pair(rng, sources, 40 + num // 2)
    num = min(num, len(first), len(second))
    share = (np.arange(num) + 1) / (num + 1)
    return _mixed(first, second, np.broadcast_to(share[:, None, None], (num, *SIZE_HW)))


def _fade(rng: np.random.Generator, sources: Sources, index: int) -> Rendering:
    """Out to black or white and in again."""
    first, second = _pair(rng, sources, 44)
    color = 0.0 if index % 2 == 0 else 255.0
    num_out, num_in = (int(rng.integers(6, 19)) for _ in range(2))
    num_blank = int(rng.integers(2, 10))
    share_out = ((np.arange(num_out) + 1) / (num_out + 1))[:, None, None, None]
    share_in = ((num_in - np.arange(num_in)) / (num_in + 1))[:, None, None, None]
    fading_out = first[-num_out:] * (1 - share_out) + color * share_out
    fading_in = second[:num_in] * (1 - share_in) + color * share_in
    blank = np.full((num_blank, *SIZE_HW, 3), color)
    middle = np.round(np.concatenate([fading_out, blank, fading_in])).astype(np.uint8)
    start = len(first) - num_out
    frames = np.concatenate([first[:start], middle, second[num_in:]])
    return Rendering(frames, gradual=((start, start + len(middle) - 1),))


def _wipe(rng: np.random.Generator, sources: Sources, index: int) -> Rendering:
    """From one of four sides, with a hard or a soft edge."""
    first, second = _pair(rng, sources, 46)
    num = int(rng.integers(8, 31))
    height, width = SIZE_HW
    axis = (
        np.linspace(0, 1, width)[None, :] if index % 2 == 0 else np.linspace(0, 1, height)[:, None]
    )
    if index % 4 >= 2:
        axis = 1 - axis
    edge = (np.arange(num) + 1)[:, None, None] / (num + 1)
    softness = 0.002 if index % 3 else 0.15
    share = np.clip((edge * (1 + softness) - axis) / softness, 0, 1)
    return _mixed(first, second, np.broadcast_to(share, (num, height, width)))


def _flash(rng: np.random.Generator, sources: Sources, index: int) -> Rendering:
    """Photographers: two to four flashes of one to four frames that light the picture up."""
    frames = _piece(rng, sources, _pick(rng, sources.shots), 80).astype(np.float64)
    light = np.zeros(len(frames))
    for _ in range(int(rng.integers(2, 5))):
        start = int(rng.integers(8, len(frames) - 8))
        decay = rng.uniform(0.0, 0.5)
        light[start : start + 4] += rng.uniform(0.5, 1.0) * decay ** np.arange(4)
    light = np.minimum(light, 1.0)[:, None, None, None]
    lit = frames * (1 + 2 * light) + 60 * light
    return Rendering(np.clip(np.round(lit), 0, 255).astype(np.uint8))


def _sped_up(rng: np.random.Generator, sources: Sources, index: int) -> Rendering:
    """Four to twelve times as fast, as long as the shot lasts."""
    wanted = int(rng.integers(4, 13))
    shot = _pick(rng, [s for s in sources.shots if s.num_frames >= 40 * 4] or sources.shots)
    stride = max(1, min(wanted, shot.num_frames // 40))
    num = min(80, (shot.num_frames - 1) // stride + 1)
    return Rendering(_read(sources.media, shot, 0, num, stride))


def _whip_pan(rng: np.random.Generator, sources: Sources, index: int) -> Rendering:
    """A photograph seen by a camera at rest that turns fast, blurs, and rests again."""
    path = sources.photos[index % len(sources.photos)]
    picture = open_image(path.as_uri(), MediaLimits())
    rest, num_moved, per_frame = 30, int(rng.integers(8, 24)), 4
    motion = CameraMotion(float(rng.uniform(120, 400)), float(rng.uniform(0, 360)))
    moved = np.stack(
        list(
            render_motion(
                picture, motion, size_HW=SIZE_HW, fps=FPS * per_frame,
                num_frames=num_moved * per_frame,
            )
        )
    )  # fmt: skip
    blurred = moved.reshape(num_moved, per_frame, *SIZE_HW, 3).mean(axis=1)
    still = [np.repeat(image[None], rest, axis=0) for image in (moved[0], moved[-1])]
    return Rendering(np.concatenate([still[0], np.round(blurred).astype(np.uint8), still[1]]))


def _shake(rng: np.random.Generator, sources: Sources, index: int) -> Rendering:
    """A camera that is run with: up to a twelfth of the height from one frame to the next."""
    frames = _piece(rng, sources, _pick(rng, sources.shots), 80)
    jerk = float(rng.uniform(4, 15))
    place = np.zeros(2)
    shaken = []
    for image in frames:
        place = place * 0.8 + rng.uniform(-jerk, jerk, 2)
        shift = np.array([[1, 0, place[0]], [0, 1, place[1]]], np.float32)
        shaken.append(
            cv2.warpAffine(image, shift, SIZE_HW[::-1], borderMode=cv2.BORDER_REFLECT_101)
        )
    return Rendering(np.asarray(np.stack(shaken), np.uint8))


CASES: Mapping[str, Draw] = {
    "cut": _cut,
    "jump cut": _jump_cut,
    "similar shots": _similar_shots,
    "quick cuts": _quick_cuts,
    "dissolve": _dissolve,
    "fade": _fade,
    "wipe": _wipe,
    "flash": _flash,
    "sped up": _sped_up,
    "whip pan": _whip_pan,
    "shake": _shake,
}
