"""A decoded frame as an upright 8-bit array of square pixels."""

from typing import Literal, cast

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from pipeline.media.orientation import UPRIGHT, Orientation, from_display_matrix

PixelFormat = Literal["rgb24", "bgr24", "gray", "rgba"]
_UNSPECIFIED_COLORSPACE = 2  # AVCOL_SPC_UNSPECIFIED
# Counter-clockwise degrees, as the binding reports them.
_TURNS = {
    90: Orientation(is_transposed=True, mirror_y=True),
    180: Orientation(mirror_x=True, mirror_y=True),
    270: Orientation(is_transposed=True, mirror_x=True),
}
_MAX_SD_HEIGHT = 576  # taller pictures without a stated matrix are BT.709 by convention


def orientation_of(frame: VideoFrame) -> Orientation:
    """From the display matrix (EXIF orientation for images); upright when there is none."""
    try:
        side_data = cast(SideDataContainer, frame.side_data)
    except ValueError:  # the binding knows no name for newer kinds of side data, such as EXIF
        return _TURNS.get(frame.rotation % 360, UPRIGHT)
    if SideDataType.DISPLAYMATRIX not in side_data:
        return UPRIGHT
    matrix = side_data[SideDataType.DISPLAYMATRIX]
    return from_display_matrix(np.frombuffer(bytes(matrix), dtype=np.int32))


class Converter:
    """Scales, converts to 8 bit and turns upright; reuses one scaler for all frames.

    High dynamic range is cut to 8 bit without tone mapping.
    """

    def __init__(
        self, *, size_HW: tuple[int, int], pix_fmt: PixelFormat, orientation: Orientation
    ) -> None:
        self.orientation = orientation
        self.stored_HW = orientation.turn_size(size_HW)
        self.pix_fmt = pix_fmt
        self._scaler = VideoReformatter()

    def convert(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """H x W x 3, or H x W for gray; full range, contiguous."""
        height, width = self.stored_HW
        converted = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format=self.pix_fmt,
            src_colorspace=_source_colorspace(frame),
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.BILINEAR,
            threads=1,
        )
        image: NDArray[np.uint8] = converted.to_ndarray()  # type: ignore[assignment]
        return self.orientation.upright(image)


def _source_colorspace(frame: VideoFrame) -> int | None:
    """None leaves what the frame states."""
    is_hd = frame.height > _MAX_SD_HEIGHT
    if frame.colorspace == _UNSPECIFIED_COLORSPACE and is_hd and not frame.format.is_rgb:
        return int(Colorspace.ITU709)
    return None
