"""What the scorers see of a clip, from one decode of its sample window.

Three views of the same window: small luma at a fixed time step for motion, a few colored key
frames, and some of those at native size as luma. Clips of one source are read in order from one
open file, so that it is decoded once, forward.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.config import MediaLimits
from pipeline.media.convert import Converter, PixelFormat
from pipeline.media.errors import MediaError, to_failure
from pipeline.media.image import open_image
from pipeline.media.video import VideoReader, open_video
from pipeline.media.window import SampleWindow, sample_window
from pipeline.score.config import SamplingConfig
from schemas.clip import ClipRow
from schemas.model_card import ModelCard
from schemas.scores import FULL_PICTURE, Box
from schemas.status import Failure

SAMPLER_VERSION = 2
_UNKNOWN_FPS = 25.0
_MOVING_SD = 6.0  # 8-bit levels: the median pixel of a moving picture varies at least so much
_LUMA_RGB = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A clip's sampled frames, upright and of square pixels. `region`: what part they show."""

    row: ClipRow
    luma_times_s: NDArray[np.float64]
    luma_THW: NDArray[np.uint8]  # small, at a fixed time step
    key_frames_THWC: NDArray[np.uint8]  # RGB, at the centers of equal parts of the window
    native_luma_THW: NDArray[np.uint8]  # some of the key frames at their own size
    region: Box = FULL_PICTURE

    def cropped(self, box: Box) -> "Clip":
        """The same frames inside the box, which is in shares of what this clip shows."""
        if box == FULL_PICTURE:
            return self
        return replace(
            self,
            luma_THW=inside(self.luma_THW, box),
            key_frames_THWC=inside(self.key_frames_THWC, box),
            native_luma_THW=inside(self.native_luma_THW, box),
            region=box,
        )

    @property
    def is_moving(self) -> bool:
        """Whether most of the picture changes over time, so that what rests stands out."""
        if len(self.luma_THW) < 2:
            return False
        deviation = self.luma_THW[:, ::4, ::4].std(axis=0, dtype=np.float32)
        return bool(np.median(deviation) >= _MOVING_SD)

    def network_frames(self, card: ModelCard) -> NDArray[np.uint8]:
        """Key frames as a network wants them: 1 x T x H x W x 3; too few are repeated."""
        frames = self.key_frames_THWC
        index = evenly(len(frames), card.num_frames or len(frames))
        index = np.resize(index, card.num_frames or len(index))
        return np.stack([_fitted(frames[i], card) for i in np.sort(index)])[None]


def evenly(num_items: int, num_wanted: int) -> NDArray[np.int64]:
    """Indices at the centers of equal parts; all of them where fewer than wanted are there."""
    count = min(num_items, num_wanted)
    return ((np.arange(count) + 0.5) * num_items / count).astype(np.int64)


def sample_clips(
    rows: Sequence[ClipRow], config: SamplingConfig, limits: MediaLimits
) -> Iterator[Clip | Failure]:
    """One clip, or why it cannot be read, per row. Rows of one source must stand together."""
    start = 0
    while start < len(rows):
        uri = rows[start].source_uri
        stop = start
        while stop < len(rows) and rows[stop].source_uri == uri:
            stop += 1
        yield from _sample_source(rows[start:stop], config, limits)
        start = stop


def _sample_source(
    rows: Sequence[ClipRow], config: SamplingConfig, limits: MediaLimits
) -> Iterator[Clip | Failure]:
    num_done = 0
    try:
        if rows[0].media_kind == "image":
            for row in rows:
                yield _image_clip(row, open_image(row.source_uri, limits), config)
                num_done += 1
            return
        with open_video(rows[0].source_uri, limits) as reader:
            for row in rows:
                try:
                    clip: Clip | Failure = _video_clip(row, reader, config)
                except MediaError as error:
                    clip = to_failure(error)
                yield clip
                num_done += 1
    except MediaError as error:
        yield from [to_failure(error)] * (len(rows) - num_done)


def _image_clip(row: ClipRow, image_HWC: NDArray[np.uint8], config: SamplingConfig) -> Clip:
    key_size = _limited_size(image_HWC.shape[:2], long_side=config.key_long_side)
    luma = np.round(image_HWC @ _LUMA_RGB).astype(np.uint8)
    small = _limited_size(luma.shape, short_side=config.flow_short_side)
    return Clip(
        row=row,
        luma_times_s=np.zeros(1),
        luma_THW=_resized(luma, small)[None],
        key_frames_THWC=_resized(image_HWC, key_size)[None],
        native_luma_THW=luma[None],
    )


def _video_clip(row: ClipRow, reader: VideoReader, config: SamplingConfig) -> Clip:
    """Raises MediaError where the window cannot be decoded."""
    picture_HW = reader.display_size
    converters = {
        "luma": _converter(reader, _flow_size(picture_HW, config.flow_short_side)),
        "key": _converter(
            reader, _limited_size(picture_HW, long_side=config.key_long_side), pix_fmt="rgb24"
        ),
        "native": _converter(reader, picture_HW),
    }
    window = sample_window(row)
    plan = _Plan.of(window, row, config, picture_HW)
    times: list[float] = []
    views: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in converters}
    for _, time_s, frame in reader.av_frames(start=window.start, end_frame=window.end_frame):
        if time_s > plan.end_s:
            break
        if plan.wants_luma(time_s):
            times.append(time_s)
            views["luma"].append(converters["luma"].convert(frame))
        for name in plan.wanted_keys(time_s):
            views[name].append(converters[name].convert(frame))
    if not times or not views["native"]:
        raise MediaError("no_frames", f"{row.source_uri}: no frame from {row.clear_s:.3f} s on")
    return Clip(
        row=row,
        luma_times_s=np.array(times),
        luma_THW=np.stack(views["luma"]),
        key_frames_THWC=np.stack(views["key"]),
        native_luma_THW=np.stack(views["native"]),
    )


@dataclass(slots=True)
class _Plan:
    """Which of the passing frames to keep. Times are on the source's timeline."""

    end_s: float
    half_frame_s: float
    flow_dt_s: float
    next_luma_s: float
    key_times_s: list[float]  # still to come
    native_at: set[int]  # which of the remaining key frames, counted from the last

    @classmethod
    def of(
        cls, window: SampleWindow, row: ClipRow, config: SamplingConfig, picture_HW: tuple[int, int]
    ) -> "_Plan":
        frame_s = 1.0 / (row.fps or _UNKNOWN_FPS)
        duration_s = window.num_frames / (window.fps or _UNKNOWN_FPS)
        num_keys = min(config.num_key_frames, window.num_frames)
        fits = max(1, config.max_native_bytes // (picture_HW[0] * picture_HW[1]))
        native = evenly(num_keys, min(config.num_native_frames, fits))
        start_s = window.start_s
        return cls(
            end_s=start_s + duration_s,
            half_frame_s=frame_s / 2,
            flow_dt_s=config.flow_dt_s,
            next_luma_s=start_s,
            key_times_s=[start_s + duration_s * (k + 0.5) / num_keys for k in range(num_keys)],
            native_at={num_keys - int(k) for k in native},
        )

    def wants_luma(self, time_s: float) -> bool:
        if time_s < self.next_luma_s - self.half_frame_s:
            return False
        while self.next_luma_s - self.half_frame_s <= time_s:
            self.next_luma_s += self.flow_dt_s
        return True

    def wanted_keys(self, time_s: float) -> list[str]:
        """Views to take of this frame; two targets within one frame count once."""
        wanted: set[str] = set()
        while self.key_times_s and time_s >= self.key_times_s[0] - self.half_frame_s:
            wanted.add("key")
            if len(self.key_times_s) in self.native_at:
                wanted.add("native")
            self.key_times_s.pop(0)
        return sorted(wanted)


def _converter(
    reader: VideoReader, size_HW: tuple[int, int], pix_fmt: PixelFormat = "gray"
) -> Converter:
    return Converter(size_HW=size_HW, pix_fmt=pix_fmt, orientation=reader.orientation)


def _limited_size(
    size_HW: tuple[int, ...], *, short_side: int | None = None, long_side: int | None = None
) -> tuple[int, int]:
    """The size reduced to a side, never enlarged."""
    height, width = size_HW
    scale = 1.0
    if short_side is not None:
        scale = min(scale, short_side / min(height, width))
    if long_side is not None:
        scale = min(scale, long_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _flow_size(picture_HW: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Reduced to the side, with a width of whole eights: the scaler is faster by a third."""
    height, width = _limited_size(picture_HW, short_side=short_side)
    if (height, width) == picture_HW:
        return picture_HW
    return height, max(8, round(width / 8) * 8)


def _resized(image: NDArray[np.uint8], size_HW: tuple[int, int]) -> NDArray[np.uint8]:
    if image.shape[:2] == size_HW:
        return image
    return np.asarray(cv2.resize(image, size_HW[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _fitted(frame_HWC: NDArray[np.uint8], card: ModelCard) -> NDArray[np.uint8]:
    """Resized as the card says: squeezed, or by the short side and then its middle."""
    size_HW = (card.height, card.width)
    if card.resize == "center_crop":
        height, width = frame_HWC.shape[:2]
        scale = max(card.height / height, card.width / width)
        crop_height, crop_width = round(card.height / scale), round(card.width / scale)
        top, left = (height - crop_height) // 2, (width - crop_width) // 2
        frame_HWC = frame_HWC[top : top + crop_height, left : left + crop_width]
    return _resized(frame_HWC, size_HW)


def inside(images: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Images T x H x W (x C) inside the box, at least one pixel."""
    height, width = images.shape[1:3]
    top, bottom = round(box.top * height), round(box.bottom * height)
    left, right = round(box.left * width), round(box.right * width)
    top, left = min(top, height - 1), min(left, width - 1)
    inside = images[:, top : max(top + 1, bottom), left : max(left + 1, right)]
    return np.ascontiguousarray(inside)  # OpenCV wants whole rows
