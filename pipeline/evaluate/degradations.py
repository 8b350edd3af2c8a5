"""What makes a clip technically worse, each kind in six growing levels.

Every function takes and gives frames T x H x W x 3 (RGB, 8 bits) and an amount in its own unit;
`KINDS` holds the six amounts. Blur and enlargement have an equivalent Gaussian sigma in pixels, so
that one number says how much detail is gone. Compression runs real encoders over all frames.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
NUM_LEVELS = 6
_RATE = Fraction(25)
Codec = Literal["libx264", "mpeg4"]
_JPEG = ".jpg"


@dataclass(frozen=True, slots=True)
class Degradation:
    """`sigma_px`: the Gaussian that blurs about as much as an amount does, where it blurs."""

    apply: Callable[[Images, float], Images]
    amounts: tuple[float, float, float, float, float, float]
    sigma_px: Callable[[float], float] | None = None


def gaussian_blur(frames_THWC: Images, sigma_px: float) -> Images:
    return _each(frames_THWC, lambda image: cv2.GaussianBlur(image, (0, 0), sigma_px))


def defocus(frames_THWC: Images, radius_px: float) -> Images:
    """An even disc with a soft rim of one pixel."""
    reach = int(np.ceil(radius_px)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _filtered(frames_THWC, np.clip(radius_px + 0.5 - np.hypot(y, x), 0, 1))


def motion_blur(frames_THWC: Images, length_px: float, angle_deg: float = 30.0) -> Images:
    """A straight stroke, as of a camera that moves during the exposure."""
    reach = int(np.ceil(length_px / 2)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    angle = np.radians(angle_deg)
    along = np.abs(x * np.cos(angle) + y * np.sin(angle))
    aside = np.abs(y * np.cos(angle) - x * np.sin(angle))
    kernel = np.clip(length_px / 2 + 0.5 - along, 0, 1) * np.clip(1 - aside, 0, 1)
    return _filtered(frames_THWC, kernel)


def enlarged(frames_THWC: Images, factor: float) -> Images:
    """Reduced by the factor and brought back, as with a small video stored large."""
    height, width = frames_THWC.shape[1:3]
    small = (max(8, round(width / factor)), max(8, round(height / factor)))

    def one(image: Images) -> object:
        reduced = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        return cv2.resize(reduced, (width, height), interpolation=cv2.INTER_CUBIC)

    return _each(frames_THWC, one)


def noise(frames_THWC: Images, sd: float) -> Images:
    """Of a sensor: stronger in the light, new in every frame; `sd` at mid gray, in 8-bit levels."""
    drawn = np.random.default_rng(0).standard_normal(frames_THWC.shape, np.float32)
    level = np.sqrt(0.35 + 0.65 * frames_THWC.astype(np.float32) / 127.5)
    return _rounded(frames_THWC + np.float32(sd) * level * drawn)


def banding(frames_THWC: Images, bits: float) -> Images:
    """Fewer levels per channel, without dither; `bits` may be a fraction."""
    step = 255 / (2.0**bits - 1)
    return _rounded(np.round(frames_THWC / step) * step)


def jpeg(frames_THWC: Images, quality: float) -> Images:
    def one(image: Images) -> object:
        _, data = cv2.imencode(_JPEG, image, [cv2.IMWRITE_JPEG_QUALITY, round(quality)])
        return cv2.imdecode(data, cv2.IMREAD_COLOR)

    return _each(frames_THWC, one)


def h264(frames_THWC: Images, crf: float) -> Images:
    return _encoded(frames_THWC, "libx264", {"crf": str(round(crf)), "preset": "veryfast"})


def mpeg4(frames_THWC: Images, quantizer: float) -> Images:
    """Part 2, with the quantizer of every block: another codec than the one learned from."""
    size = str(round(quantizer))
    return _encoded(frames_THWC, "mpeg4", {"qmin": size, "qmax": size})


KINDS: Mapping[str, Degradation] = {
    "gaussian_blur": Degradation(gaussian_blur, (0.6, 0.9, 1.3, 1.9, 2.8, 4.0), lambda s: s),
    "defocus": Degradation(defocus, (1.0, 1.6, 2.4, 3.6, 5.4, 8.0), lambda r: r / 2),
    "motion_blur": Degradation(motion_blur, (3, 5, 8, 13, 21, 33), lambda n: n / 12**0.5),
    "enlarged": Degradation(enlarged, (1.4, 1.8, 2.4, 3.2, 4.4, 6.0), lambda f: f / 2),
    "noise": Degradation(noise, (3, 5, 8, 13, 21, 34)),
    "banding": Degradation(banding, (5.0, 4.5, 4.0, 3.5, 3.0, 2.3)),
    "jpeg": Degradation(jpeg, (70, 45, 28, 17, 10, 5)),
    "h264": Degradation(h264, (26, 30, 34, 38, 42, 47)),
    "mpeg4": Degradation(mpeg4, (4, 7, 11, 16, 23, 31)),
}


def _each(frames_THWC: Images, change: Callable[[Images], object]) -> Images:
    return np.stack([np.asarray(change(image), np.uint8) for image in frames_THWC])


def _filtered(frames_THWC: Images, kernel: NDArray[np.float64]) -> Images:
    weights = kernel / kernel.sum()
    return _each(frames_THWC, lambda image: cv2.filter2D(image, -1, weights))


def _rounded(values: NDArray[np.floating]) -> Images:
    return np.asarray(np.clip(np.round(values), 0, 255), np.uint8)


def _encoded(frames_THWC: Images, codec: Codec, options: dict[str, str]) -> Images:
    """Through the encoder and back; an odd last row or column is repeated from its neighbor."""
    height, width = frames_THWC.shape[1:3]
    even = np.pad(frames_THWC, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=_RATE, options=options | {"threads": "1"})
        stream.height, stream.width = even.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in even:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as reader:
        decoded = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)]
    return np.asarray(np.stack(decoded)[:, :height, :width], np.uint8)
