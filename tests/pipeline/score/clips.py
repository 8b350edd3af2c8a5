"""Clips made in memory, without a codec: what the scorers see is known to the pixel."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.score.sampler import Clip, evenly
from schemas.clip import ClipRow

Images = NDArray[np.uint8]


def picture(height: int = 360, width: int = 640, seed: int = 0) -> Images:
    """H x W x 3 with edges and detail at all sizes, as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cell in (2, 4, 8, 16, 32, 64, 128):
        coarse = rng.normal(0, cell**0.6, (height // cell + 2, width // cell + 2, 3))
        fine = cv2.resize(
            coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST
        )
        total += fine
    total = 128 + 45 * total / total.std()
    return np.asarray(np.clip(cv2.GaussianBlur(total, (0, 0), 0.6), 0, 255), np.uint8)


def clip_of(frames: Sequence[Images], fps: float = 24.0, *, kind: str = "video") -> Clip:
    """A clip of RGB frames as the sampler would keep them."""
    count = len(frames)
    height, width = frames[0].shape[:2]
    stride = max(1, round(0.125 * fps))
    luma = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    small = (max(1, round(width * min(1, 256 / min(height, width)))),
             max(1, round(height * min(1, 256 / min(height, width)))))  # fmt: skip
    times = list(range(0, count, stride))
    keys = evenly(count, 8)
    row = ClipRow(
        clip_id="0" * 32,
        source_uri="file:///made",
        source_sha256="0" * 64,
        media_kind="image" if kind == "image" else "video",
        end_frame=count,
        end_s=count / fps,
        fps=fps,
        width=width,
        height=height,
    )
    return Clip(
        row=row,
        luma_times_s=np.array(times) / fps,
        luma_THW=np.stack(
            [cv2.resize(luma[t], small, interpolation=cv2.INTER_AREA) for t in times]
        ),
        key_frames_THWC=np.stack([frames[k] for k in keys]),
        native_luma_THW=np.stack([luma[k] for k in keys]),
    )
