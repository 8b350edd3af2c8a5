"""Renders small media for tests, so that what is true of them is known by construction."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

Images = NDArray[np.uint8]  # T x H x W x 3, RGB


def moving_frames(
    num_frames: int, height: int = 48, width: int = 64, *, seed: int = 0, step_px: int = 2
) -> Images:
    """A smooth texture that moves right by `step_px` per frame. All differ."""
    wide = width + step_px * num_frames
    picture = texture(height, wide, seed=seed)
    offsets = [step_px * (num_frames - 1 - i) for i in range(num_frames)]
    return np.stack([picture[:, offset : offset + width] for offset in offsets])


def texture(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """H x W x 3: smooth random colours that survive compression."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 255, (height // 8 + 2, width // 8 + 2, 3))
    rows = np.linspace(0, coarse.shape[0] - 1.001, height)
    columns = np.linspace(0, coarse.shape[1] - 1.001, width)
    top, left = rows.astype(int), columns.astype(int)
    y, x = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = coarse[top][:, left] * (1 - x) + coarse[top][:, left + 1] * x
    lower = coarse[top + 1][:, left] * (1 - x) + coarse[top + 1][:, left + 1] * x
    return np.asarray(upper * (1 - y) + lower * y, dtype=np.uint8)


def numbered_frames(num_frames: int, height: int = 32, width: int = 64) -> Images:
    """Frames that carry their index as 16 black or white columns; `read_number` reads it back."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for index in range(num_frames):
        bits = [(index >> bit) & 1 for bit in range(16)]
        frames[index] = np.repeat(np.array(bits, np.uint8) * 255, width // 16)[None, :, None]
    return frames


def read_number(image: NDArray[np.uint8]) -> int:
    """The index that `numbered_frames` wrote into an H x W (x C) picture, whatever its size."""
    gray = image if image.ndim == 2 else image[..., 1]
    row = gray[gray.shape[0] // 4 : gray.shape[0] * 3 // 4].mean(axis=0)
    columns = ((np.arange(16) + 0.5) * len(row) / 16).astype(int)
    return sum(int(row[column] > 127) << bit for bit, column in enumerate(columns))


def scenes(lengths: Sequence[int], height: int = 48, width: int = 64, *, seed: int = 0) -> Images:
    """Moving shots of these lengths, one hard cut after another."""
    shots = [
        moving_frames(length, height, width, seed=seed + i) for i, length in enumerate(lengths)
    ]
    return np.concatenate(shots)


def write_video(
    path: Path | str,
    frames_THWC: Images,
    fps: float | Fraction = 24,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times_s: Sequence[float] | None = None,
    start_s: float = 0.0,
    rotation_deg: int = 0,
    sample_aspect_ratio: Fraction | None = None,
    num_b_frames: int = 0,
    gop: int = 12,
    quality: int = 12,
    audio: bool = False,
    codec_options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    format: str | None = None,
) -> Path:
    """Encode RGB frames (T x H x W x 3). Returns the path.

    `times_s` gives each frame its own time (variable rate), `start_s` shifts all of them,
    `rotation_deg` is the clockwise turn that makes the stored picture upright, `audio` adds a
    tone. With the same arguments the bytes are the same.
    """
    rate = Fraction(fps).limit_denominator(1001)
    options = {"g": str(gop), "bf": str(num_b_frames), "threads": "1"}
    if codec in ("libx264", "libx265"):
        options |= {"crf": str(quality), "preset": "veryfast"}
    if codec == "libx265":
        options |= {"x265-params": "log-level=none:pools=1:frame-threads=1"}
    container = av.open(
        str(path), "w", format=format, container_options=dict(container_options or {})
    )
    with container:
        stream = cast(
            VideoStream,
            container.add_stream(codec, rate=rate, options=options | dict(codec_options or {})),
        )
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 90_000) if times_s or start_s else 1 / rate
        if sample_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
        if rotation_deg:
            stream.set_display_rotation(-rotation_deg)
        tone = container.add_stream("aac", rate=16_000, layout="mono") if audio else None
        time_base = stream.codec_context.time_base
        for index, image in enumerate(frames_THWC):
            frame = VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format=pix_fmt, interpolation="BILINEAR", threads=1
            )
            time_s = Fraction(times_s[index]) if times_s else index / rate
            frame.pts = round((time_s + Fraction(start_s)) / time_base)
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        if tone is not None:
            _write_tone(container, tone, len(frames_THWC) / float(rate))
        container.mux(stream.encode(None))
    return Path(path)


def write_audio(path: Path | str, duration_s: float = 0.5) -> Path:
    """A file without any picture."""
    with av.open(str(path), "w") as container:
        tone = container.add_stream("aac", rate=16_000, layout="mono")
        _write_tone(container, tone, duration_s)
    return Path(path)


def write_image(path: Path | str, image_HWC: NDArray[np.uint8], *, quality: int = 95) -> Path:
    """An H x W x 3 RGB picture in the format of the suffix (.jpg, .png, .webp, .gif, .avif)."""
    from PIL import Image

    Image.fromarray(image_HWC).save(path, quality=quality)
    return Path(path)


def _write_tone(
    container: av.container.OutputContainer, stream: av.audio.stream.AudioStream, duration_s: float
) -> None:
    num_samples = 1024
    for start in range(0, max(num_samples, int(duration_s * 16_000)), num_samples):
        wave = np.sin(np.arange(start, start + num_samples) * 2 * np.pi * 440 / 16_000)
        frame = AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        frame.pts = start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
