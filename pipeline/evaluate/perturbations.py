"""What people do to a clip before it comes back as a near-duplicate.

Spatial edits work on the sampled frames (T x H x W x 3, RGB); re-encodings go through a real
H.264 encoder; edits in time are other sample times, which the caller reads.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Severity = Literal["mild", "strong"]


@dataclass(frozen=True, slots=True)
class Perturbation:
    """`span`: the share of the clip that the copy shows, as (begin, end) in [0, 1]."""

    severity: Severity
    edit: Callable[[Images], Images]
    span: tuple[float, float] = (0.0, 1.0)


def reencode(frames_THWC: Images, *, crf: int, short_side: int) -> Images:
    """Through H.264 at that quality and size."""
    height, width = frames_THWC.shape[1:3]
    scale = min(1.0, short_side / min(height, width))
    size_HW = max(16, round(height * scale / 2) * 2), max(16, round(width * scale / 2) * 2)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        stream = container.add_stream("libx264", rate=8, options=options)
        stream.height, stream.width = size_HW
        stream.pix_fmt = "yuv420p"
        for image in resize(frames_THWC, size_HW):
            container.mux(stream.encode(VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer, "r") as decoded:
        images = [frame.to_ndarray(format="rgb24") for frame in decoded.decode(video=0)]
    return np.stack(images).astype(np.uint8)


def resize(frames_THWC: Images, size_HW: tuple[int, int]) -> Images:
    return np.stack(
        [
            np.asarray(cv2.resize(f, size_HW[::-1], interpolation=cv2.INTER_AREA), np.uint8)
            for f in frames_THWC
        ]
    )


def crop(frames_THWC: Images, share: float, *, corner: bool = False) -> Images:
    """The middle, or the top left corner, `share` of each side."""
    height, width = frames_THWC.shape[1:3]
    crop_height, crop_width = round(height * share), round(width * share)
    top = 0 if corner else (height - crop_height) // 2
    left = 0 if corner else (width - crop_width) // 2
    return frames_THWC[:, top : top + crop_height, left : left + crop_width]


def letterbox(frames_THWC: Images, share: float) -> Images:
    """Black bars above and below, together `share` of the new height."""
    bar = round(frames_THWC.shape[1] * share / (1 - share) / 2)
    return np.pad(frames_THWC, ((0, 0), (bar, bar), (0, 0), (0, 0)))


def tone(frames_THWC: Images, *, gain: float = 1.0, gamma: float = 1.0) -> Images:
    levels = 255 * np.clip(gain * (np.arange(256) / 255) ** gamma, 0, 1)
    return np.round(levels).astype(np.uint8)[frames_THWC]


def gray(frames_THWC: Images) -> Images:
    luma = (frames_THWC @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=3)


def logo(frames_THWC: Images) -> Images:
    """A white block in the top right corner, a tenth of the height."""
    marked = frames_THWC.copy()
    side = max(2, frames_THWC.shape[1] // 10)
    marked[:, side : 2 * side, -4 * side : -side] = 255
    return marked


def subtitle(frames_THWC: Images) -> Images:
    """Two lines of text over the lower part."""
    marked = frames_THWC.copy()
    height, width = frames_THWC.shape[1:3]
    for image in marked:
        for line, text in enumerate(("and then she said to him", "that nothing was ever lost")):
            place = (width // 8, round(height * (0.82 + 0.1 * line)))
            scale = width / 480
            cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 2)
    return marked


def noise(frames_THWC: Images, sd: float) -> Images:
    generator = np.random.default_rng(0)
    noisy = frames_THWC + generator.normal(0, sd, frames_THWC.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def _squeeze(frames_THWC: Images) -> Images:
    return resize(frames_THWC, (frames_THWC.shape[1], round(frames_THWC.shape[2] * 0.75)))


def _same(frames_THWC: Images) -> Images:
    return frames_THWC


PERTURBATIONS: Mapping[str, Perturbation] = {
    "reencode_crf28": Perturbation("mild", lambda f: reencode(f, crf=28, short_side=360)),
    "reencode_crf35": Perturbation("mild", lambda f: reencode(f, crf=35, short_side=360)),
    "resize_180": Perturbation("mild", lambda f: reencode(f, crf=28, short_side=180)),
    "squeeze_4_3": Perturbation("mild", _squeeze),
    "crop_90": Perturbation("mild", lambda f: crop(f, 0.9)),
    "brighter": Perturbation("mild", lambda f: tone(f, gain=1.2)),
    "darker": Perturbation("mild", lambda f: tone(f, gain=0.8)),
    "logo": Perturbation("mild", logo),
    "trim_75": Perturbation("mild", _same, span=(0.125, 0.875)),
    "reencode_crf42_180": Perturbation("strong", lambda f: reencode(f, crf=42, short_side=180)),
    "crop_75": Perturbation("strong", lambda f: crop(f, 0.75)),
    "crop_corner_75": Perturbation("strong", lambda f: crop(f, 0.75, corner=True)),
    "letterbox_25": Perturbation("strong", lambda f: letterbox(f, 0.25)),
    "gamma": Perturbation("strong", lambda f: tone(f, gamma=1.6)),
    "gray": Perturbation("strong", gray),
    "flip": Perturbation("strong", lambda f: f[:, :, ::-1]),
    "subtitle": Perturbation("strong", subtitle),
    "noise": Perturbation("strong", lambda f: noise(f, 12.0)),
    "trim_50": Perturbation("strong", _same, span=(0.0, 0.5)),
}
