"""From a source to the bytes of one sample: cut out, resize, encode. Equal input, equal bytes.

One thread per encode, no timestamps, no encoder name in the container. Video is H.264, 4:2:0,
BT.709, limited range, at a constant rate of exactly the planned number of frames.
"""

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.media.image import open_image
from pipeline.media.video import open_video
from pipeline.media.window import sample_window, select_samples
from pipeline.pack.config import EncodeConfig
from pipeline.pack.job import PackJob
from schemas.h264 import REPEATABLE_X264_PARAMS

Image = NDArray[np.uint8]  # H x W x 3, RGB

MEDIA_SUFFIX = {"video": "mp4", "image": "jpg"}
_BT709 = 1  # the code point of primaries, transfer and matrix alike (ITU-T H.273)
_MAX_DENOMINATOR = 1001  # 24000/1001, 30000/1001
_KEYFRAME_EVERY = 32


def encode_job(job: PackJob, config: EncodeConfig, limits: MediaLimits) -> bytes:
    """The media member of one sample. Raises MediaError."""
    sample = job.sample
    size_HW = (sample.height, sample.width)
    if sample.media_kind == "image":
        image = open_image(job.clip.source_uri, limits)
        return encode_jpeg(resize(_cut(image, job), size_HW), config)
    window = sample_window(job.clip, sample.num_frames)
    assert window.fps is not None
    with open_video(job.clip.source_uri, limits) as video:
        frames = video.frames(start=window.start, end_frame=window.end_frame)
        samples = select_samples(frames, window)
        images = (_cut(frame.image, job) for frame in samples)
        return encode_mp4(images, size_HW, frame_rate(window.fps), sample.num_frames, config)


def frame_rate(fps: float) -> Fraction:
    """The exact rate that was measured as `fps`: 23.976 is 24000/1001."""
    return Fraction(fps).limit_denominator(_MAX_DENOMINATOR)


def resize(image: Image, size_HW: tuple[int, int]) -> Image:
    """Scaled down by area averaging; an image of the wanted size stays as it is."""
    if image.shape[:2] == size_HW:
        return image
    height, width = size_HW
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)


def encode_jpeg(image: Image, config: EncodeConfig) -> bytes:
    """Baseline JPEG, 4:4:4: small pictures lose visible color detail at 4:2:0."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        config.jpeg_quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    assert done
    return bytes(data)


def encode_mp4(
    images: Iterable[Image],
    size_HW: tuple[int, int],
    rate: Fraction,
    num_frames: int,
    config: EncodeConfig,
) -> bytes:
    """Exactly `num_frames` pictures, scaled to `size_HW`, as MP4.

    Raises MediaError where the source gave fewer.
    """
    buffer = io.BytesIO()
    # An index at the front would need a second pass over the file: readers here have whole members.
    options = {"fflags": "+bitexact"}
    with av.open(buffer, "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=rate)
        _set_up(stream, size_HW, rate, config)
        count = 0
        for frame in _yuv_frames(images, size_HW):
            frame.pts, frame.time_base = count, 1 / rate
            container.mux(stream.encode(frame))
            count += 1
        if count != num_frames:
            raise MediaError("ended_early", f"{count} frames where {num_frames} were planned")
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _set_up(
    stream: VideoStream, size_HW: tuple[int, int], rate: Fraction, config: EncodeConfig
) -> None:
    stream.height, stream.width = size_HW
    stream.pix_fmt = "yuv420p"
    stream.time_base = 1 / rate
    stream.options = {
        "crf": str(config.crf),
        "preset": config.preset,
        "flags": "+bitexact",
        "threads": "1",
        "x264-params": REPEATABLE_X264_PARAMS,
    }
    context = stream.codec_context
    context.thread_count = 1
    context.gop_size = _KEYFRAME_EVERY
    context.color_primaries = _BT709
    context.color_trc = _BT709
    context.colorspace = _BT709
    context.color_range = ColorRange.MPEG


def _yuv_frames(images: Iterable[Image], size_HW: tuple[int, int]) -> Iterator[VideoFrame]:
    """Scaled by area averaging and converted in one step: a third of the time of two."""
    height, width = size_HW
    reformatter = VideoReformatter()
    for image in images:
        yield reformatter.reformat(
            VideoFrame.from_ndarray(image, format="rgb24"),
            width=width,
            height=height,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.AREA,
        )


def _cut(image: Image, job: PackJob) -> Image:
    crop = job.crop_px
    height, width = image.shape[:2]
    if crop.left + crop.width > width or crop.top + crop.height > height:
        raise MediaError(
            "size_changed",
            f"{job.clip.source_uri}: {width}x{height} where {job.clip.width}x{job.clip.height} "
            "was measured",
        )
    inside = image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    return np.ascontiguousarray(inside)
