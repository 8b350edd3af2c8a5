"""Frames of one media member: PyAV, and decord behind the same call.

Both give the frames that the view asks for, scaled by swscale's bicubic filter, as 8-bit RGB. At
the size of the shard they agree to the bit. Neither is imported before it is asked for: training on
latents needs none.
"""

import io
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from modeling.data.errors import DataError
from modeling.data.view import View

Decoder = Literal["pyav", "decord"]
Pixels = NDArray[np.uint8]
_JPEG_START = b"\xff\xd8"


class DecodeFrames(Protocol):
    """Fills out_THWC (of the view's shape) with frames. Raises SampleError."""

    def __call__(self, media: bytes, view: View, out_THWC: Pixels) -> None: ...


def frame_decoder(name: Decoder) -> DecodeFrames:
    """Raises DataError where decord is asked for and not installed."""
    return _pyav() if name == "pyav" else _DecordDecoder()


def _pyav() -> DecodeFrames:
    from modeling.data.decode_pyav import decode_by_pyav

    return decode_by_pyav


def cut_view(image_HWC: Pixels, view: View) -> Pixels:
    """The view's part of a scaled picture or of several."""
    bottom, right = view.top + view.shape.height, view.left + view.shape.width
    return image_HWC[..., view.top : bottom, view.left : right, :]


class _DecordDecoder:
    """Videos by decord (Apache-2.0); by PyAV what decord does not take.

    That is images, and some narrow pictures (48 columns) that decord 0.6 refuses by mistake.
    """

    def __init__(self) -> None:
        try:
            import decord
        except ImportError as error:
            raise DataError(
                "decoder", "decord is not installed", "pip install 'reelsieve[decord]', or use pyav"
            ) from error
        self._decord: Any = decord
        self._other = _pyav()

    def __call__(self, media: bytes, view: View, out_THWC: Pixels) -> None:
        if media.startswith(_JPEG_START):
            self._other(media, view, out_THWC)
            return
        height, width = view.scaled_HW
        try:
            video = self._decord.VideoReader(
                io.BytesIO(media), width=width, height=height, num_threads=1
            )
            frames_THWC = video.get_batch(view.frames).asnumpy()
        except (self._decord.DECORDError, IndexError):
            self._other(media, view, out_THWC)
        else:
            out_THWC[:] = cut_view(frames_THWC, view)
