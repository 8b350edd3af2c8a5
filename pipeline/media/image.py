"""Reads still images: upright 8-bit RGB of square pixels, whatever they are stored as.

Content decides what a file is: a JPEG named `.mp4` is an image. The first frame of an animation
can be read here as well. Transparent pictures are laid over white.
"""

from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from pipeline.media.config import MediaLimits
from pipeline.media.container import (
    Budget,
    check_pixels,
    decode,
    open_container,
    select_video_stream,
)
from pipeline.media.convert import Converter, orientation_of
from pipeline.media.fetch import local_path, read_head
from pipeline.media.image_header import read_image_header
from pipeline.media.orientation import Orientation
from pipeline.media.sniff import Format, sniff
from schemas.source import Probe

_BACKGROUND = 255


def open_image(uri: str, limits: MediaLimits) -> NDArray[np.uint8]:
    """H x W x 3, RGB, upright, square pixels. Raises MediaError."""
    with local_path(uri, limits) as path:
        format = sniff(read_head(path, uri), uri)
        frame, orientation = _read(path, uri, format, limits)
        return _to_rgb(frame, orientation)


def probe_image(path: Path, uri: str, format: Format, limits: MediaLimits) -> Probe:
    """Facts of an image that has been decoded once, so that a broken one is found here."""
    frame, orientation = _read(path, uri, format, limits)
    height, width = orientation.turn_size((frame.height, frame.width))
    return Probe(
        media_kind="image",
        container=format.demuxer,
        codec=_codec_of(format),
        width=width,
        height=height,
        pix_fmt=frame.format.name,
        rotation_deg=orientation.rotation_deg,
        num_frames=1,
    )


def check_header(path: Path, uri: str, max_pixels: int) -> Orientation | None:
    """The orientation that the header states. Raises MediaError `too_many_pixels`."""
    with path.open("rb") as file:
        header = read_image_header(file)
    if header is None:
        return None
    check_pixels(header.width, header.height, uri, max_pixels)
    return header.orientation


def _read(
    path: Path, uri: str, format: Format, limits: MediaLimits
) -> tuple[VideoFrame, Orientation]:
    max_pixels = limits.max_image_pixels
    stated = check_header(path, uri, max_pixels)
    with open_container(path, uri, format, limits, max_pixels=max_pixels) as container:
        stream = select_video_stream(container, uri, max_pixels)
        frames = decode(container, stream, uri, Budget(uri, limits.max_decode_s))
        frame = next(frames)
        frames.close()
    check_pixels(frame.width, frame.height, uri, max_pixels)
    return frame, orientation_of(frame) if stated is None else stated


def _to_rgb(frame: VideoFrame, orientation: Orientation) -> NDArray[np.uint8]:
    size = orientation.turn_size((frame.height, frame.width))
    has_alpha = frame.format.has_palette or any(c.is_alpha for c in frame.format.components)
    if not has_alpha:
        return Converter(size_HW=size, pix_fmt="rgb24", orientation=orientation).convert(frame)
    rgba = Converter(size_HW=size, pix_fmt="rgba", orientation=orientation).convert(frame)
    alpha = rgba[..., 3:].astype(np.uint32)
    # Exact rounding of (color * alpha + background * (255 - alpha)) / 255 in whole numbers.
    mixed = (rgba[..., :3] * alpha + _BACKGROUND * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)


def _codec_of(format: Format) -> str:
    return format.demuxer.removesuffix("_pipe")
