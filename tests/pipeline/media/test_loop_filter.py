from pathlib import Path

import numpy as np
from av.video.frame import PictureType

from pipeline.media.config import LoopFilterSkip, MediaLimits
from pipeline.media.video import open_video
from tests.media_files import moving_frames, write_video


def read(path: Path, skip: LoopFilterSkip) -> list[tuple[bool, np.ndarray]]:
    """Whether a frame is bidirectional, and its luma."""
    with open_video(path.absolute().as_uri(), MediaLimits(), skip_loop_filter=skip) as reader:
        return [
            (frame.pict_type == PictureType.B, frame.to_ndarray()[: frame.height].copy())
            for _, _, frame in reader.av_frames()
        ]


def test_pictures_that_others_are_made_from_keep_their_loop_filter(tmp_path: Path) -> None:
    frames = moving_frames(24, 128, 160)
    path = write_video(tmp_path / "b.mp4", frames, num_b_frames=2, quality=40)
    plain, cheap = read(path, "none"), read(path, "noref")
    is_same = [np.array_equal(a, b) for (_, a), (_, b) in zip(plain, cheap, strict=True)]
    is_bidirectional = [is_b for is_b, _ in plain]
    assert all(same for same, is_b in zip(is_same, is_bidirectional, strict=True) if not is_b)
    assert not all(is_same)
    strayed = max(
        np.abs(a.astype(int) - b).mean() for (_, a), (_, b) in zip(plain, cheap, strict=True)
    )
    assert strayed < 4.0
