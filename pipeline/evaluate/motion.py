"""Speed and direction of rendered camera motion, ours beside plain Farneback flow.

Photographs are moved by known amounts, encoded as H.264 and measured like any clip. The peer is
the mean magnitude of Farneback flow between neighboring frames of the same file, in our unit.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.figures import OURS, Figure, mean_figure, share_figure
from pipeline.media.config import MediaLimits
from pipeline.media.image import open_image
from pipeline.score.config import ScoreConfig
from pipeline.score.flow import FlowEstimator
from pipeline.score.motion import motion_score
from pipeline.score.sampler import Clip, sample_clips
from schemas.clip import ClipRow
from schemas.status import Failure

PHOTO_FOLDER = "photos/kodak"
PART = "motion"
PEER = "Farneback flow"
_DURATION_S = 1.5
_GOOD_ERROR = 0.1


@dataclass(frozen=True, slots=True)
class CameraMotion:
    """What a rendered camera does. Speed in percent of the diagonal per second, y downward."""

    speed: float = 0.0
    content_direction_deg: float = 0.0  # 0: content moves right; 90: down
    zoom: float = 0.0  # natural-log scale per second
    roll_deg: float = 0.0  # content turns clockwise, per second


def render_motion(
    picture_HWC: NDArray[np.uint8],
    motion: CameraMotion,
    *,
    size_HW: tuple[int, int],
    fps: float,
    num_frames: int,
) -> Iterator[NDArray[np.uint8]]:
    """Frames of a camera that looks at an endless mirrored tiling of the picture."""
    height, width = size_HW
    diagonal = float(np.hypot(height, width))
    step_px = motion.speed / 100 * diagonal / fps
    angle = np.radians(motion.content_direction_deg)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    tile = _tileable(picture_HWC, size_HW)
    for index in range(num_frames):
        turn = -np.radians(motion.roll_deg) * index / fps
        scale = np.exp(-motion.zoom * index / fps)
        moved_x = scale * (np.cos(turn) * x - np.sin(turn) * y) - index * step_px * np.cos(angle)
        moved_y = scale * (np.sin(turn) * x + np.cos(turn) * y) - index * step_px * np.sin(angle)
        yield np.asarray(
            cv2.remap(
                tile,
                (moved_x % tile.shape[1]).astype(np.float32),
                (moved_y % tile.shape[0]).astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_WRAP,
            ),
            np.uint8,
        )


def evaluate_motion(media: Path, *, max_clips: int | None = None) -> list[Figure]:
    """Every photo gets one of the cases in turn, so that no case hangs on one picture.

    Errors of speed are relative (0.1 = 10 %). Clips that could not be measured for want of texture
    are a share of their own and not in the errors, neither ours nor the peer's.
    """
    photos = sorted((media / PHOTO_FOLDER).iterdir())
    errors: dict[str, list[float]] = {OURS: [], PEER: []}
    turned: list[float] = []
    failed: list[bool] = []
    with tempfile.TemporaryDirectory() as folder:
        for index, (motion, size_HW, fps) in enumerate(_cases()[:max_clips]):
            picture = open_image(photos[index % len(photos)].as_uri(), MediaLimits())
            num_frames = round(_DURATION_S * fps)
            frames = list(
                render_motion(picture, motion, size_HW=size_HW, fps=fps, num_frames=num_frames)
            )
            measured = _measure(encoded_clip(Path(folder) / f"{index}.mp4", frames, fps))
            failed.append(measured is None)
            if measured is None:
                continue
            speed, direction_deg = measured
            errors[OURS].append(abs(speed / motion.speed - 1))
            errors[PEER].append(abs(_farneback_speed(frames, fps) / motion.speed - 1))
            difference = direction_deg - motion.content_direction_deg
            turned.append(abs((difference + 180) % 360 - 180))
    figures = [
        mean_figure(PART, "direction error (degrees)", OURS, turned, "clips"),
        share_figure(PART, "not measured", OURS, failed, "clips"),
    ]
    for method, values in errors.items():
        within = [value <= _GOOD_ERROR for value in values]
        figures += [
            mean_figure(PART, "speed error", method, values, "clips"),
            share_figure(PART, "speed within 10 %", method, within, "clips"),
        ]
    return figures


def _cases() -> list[tuple[CameraMotion, tuple[int, int], float]]:
    """Speeds, sizes, rates and directions, mixed."""
    return [
        (CameraMotion(speed, direction), size_HW, fps)
        for speed, size_HW, fps, direction in zip(
            (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0) * 3,
            ((240, 426), (360, 640), (720, 1280)) * 8,
            (12.0, 24.0, 30.0, 60.0) * 6,
            (0.0, 90.0, 200.0, 315.0, 45.0) * 5,
            strict=False,
        )
    ]


def encoded_clip(path: Path, frames: Sequence[NDArray[np.uint8]], fps: float) -> Clip:
    """The frames through H.264 and the sampler. Raises RuntimeError if they come not back."""
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "threads": "1"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    height, width = frames[0].shape[:2]
    return sampled_file(path, len(frames), fps, (height, width))


def sampled_file(path: Path, num_frames: int, fps: float, size_HW: tuple[int, int]) -> Clip:
    """A whole file through the sampler. Raises RuntimeError if it cannot be read."""
    row = ClipRow(
        clip_id="0" * 32,
        source_uri=path.absolute().as_uri(),
        source_sha256="0" * 64,
        media_kind="video",
        end_frame=num_frames,
        end_s=num_frames / fps,
        fps=fps,
        width=size_HW[1],
        height=size_HW[0],
    )
    (clip,) = sample_clips([row], ScoreConfig().sampling, MediaLimits())
    if isinstance(clip, Failure):
        raise RuntimeError(f"{path}: {clip.error}")
    return clip


def _measure(clip: Clip) -> tuple[float, float] | None:
    """Speed and direction of the content in degrees; None where there is too little texture."""
    estimator = FlowEstimator(ScoreConfig().flow)
    estimator.setup()
    track = estimator.track(clip)
    if isinstance(track, Failure):
        return None
    right, down = np.median(track.model_S8[:, [0, 3]], axis=0)
    return motion_score(track).camera_speed, float(np.degrees(np.arctan2(down, right)))


def _farneback_speed(frames: Sequence[NDArray[np.uint8]], fps: float) -> float:
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[:13]]
    diagonal = float(np.hypot(*gray[0].shape))
    speeds = []
    for first, second in zip(gray[::3], gray[1::3], strict=False):
        flow = np.empty((*first.shape, 2), np.float32)
        flow = np.asarray(
            cv2.calcOpticalFlowFarneback(first, second, flow, 0.5, 3, 15, 3, 5, 1.2, 0)
        )
        speeds.append(float(np.linalg.norm(flow, axis=2).mean()) / diagonal * fps * 100)
    return float(np.median(speeds))


def _tileable(picture_HWC: NDArray[np.uint8], size_HW: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture at about the frame's size beside its mirror images: it repeats without seams."""
    scale = max(size_HW[0] / picture_HWC.shape[0], size_HW[1] / picture_HWC.shape[1])
    size = (round(picture_HWC.shape[1] * scale), round(picture_HWC.shape[0] * scale))
    picture = cv2.resize(picture_HWC, size, interpolation=cv2.INTER_AREA)
    wide = np.concatenate([picture, picture[:, ::-1]], axis=1)
    return np.asarray(np.concatenate([wide, wide[::-1]], axis=0), np.uint8)
