from pathlib import Path

import numpy as np
import pytest

from pipeline.media.config import MediaLimits
from pipeline.score.config import SamplingConfig
from pipeline.score.sampler import Clip, evenly, sample_clips
from schemas.clip import ClipRow
from schemas.scores import Box
from schemas.status import Failure
from tests.media_files import moving_frames, numbered_frames, read_number, write_image, write_video


def row(
    path: Path, start: int, end: int, *, fps: float = 24.0, clear: int | None = None
) -> ClipRow:
    clear = start if clear is None else clear
    return ClipRow(
        clip_id=f"{start:032x}",
        source_uri=path.absolute().as_uri(),
        source_sha256="0" * 64,
        media_kind="video",
        start_frame=start,
        end_frame=end,
        start_s=start / fps,
        end_s=end / fps,
        clear_frame=clear,
        clear_s=clear / fps,
        fps=fps,
        width=64,
        height=32,
    )


def sample(rows: list[ClipRow], config: SamplingConfig | None = None) -> list[Clip | Failure]:
    return list(sample_clips(rows, config or SamplingConfig(), MediaLimits()))


def test_frames_come_from_the_window_at_the_fixed_step(tmp_path: Path) -> None:
    path = write_video(tmp_path / "numbers.mp4", numbered_frames(200))
    (clip,) = sample([row(path, 30, 190, clear=36)])
    assert isinstance(clip, Clip)
    # 24 fps: a step of 0.125 s is 3 frames; the window holds 129 frames from frame 36 on.
    numbers = [read_number(image) for image in clip.luma_THW]
    assert numbers == list(range(36, 36 + 129, 3))
    assert np.allclose(np.diff(clip.luma_times_s), 0.125)
    keys = [read_number(image) for image in clip.key_frames_THWC]
    assert len(keys) == 8
    assert all(36 <= key < 36 + 129 for key in keys)
    assert np.ptp(np.diff(keys)) <= 1
    natives = [read_number(image) for image in clip.native_luma_THW]
    assert len(natives) == 5
    assert set(natives) <= set(keys)


def test_clips_of_one_source_are_read_one_after_the_other(tmp_path: Path) -> None:
    path = write_video(tmp_path / "numbers.mp4", numbered_frames(120), num_b_frames=2)
    clips = sample([row(path, 0, 40), row(path, 40, 70), row(path, 90, 120)])
    firsts = [read_number(c.luma_THW[0]) for c in clips if isinstance(c, Clip)]
    assert firsts == [0, 40, 90]


def test_a_clip_of_one_frame_has_one_of_each(tmp_path: Path) -> None:
    path = write_video(tmp_path / "numbers.mp4", numbered_frames(30))
    (clip,) = sample([row(path, 7, 8)])
    assert isinstance(clip, Clip)
    assert [read_number(image) for image in clip.luma_THW] == [7]
    assert len(clip.key_frames_THWC) == len(clip.native_luma_THW) == 1


def test_large_pictures_keep_fewer_native_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.mp4", moving_frames(30, 1024, 1026))
    (clip,) = sample([row(path, 0, 30)], SamplingConfig(max_native_bytes=2 << 20))
    assert isinstance(clip, Clip)
    assert len(clip.native_luma_THW) == 1
    assert clip.native_luma_THW.shape[1:] == (1024, 1026)
    assert max(clip.key_frames_THWC.shape[1:3]) == 960


def test_a_missing_source_fails_all_its_clips_and_no_others(tmp_path: Path) -> None:
    good = write_video(tmp_path / "good.mp4", moving_frames(24))
    missing = tmp_path / "missing.mp4"
    results = sample([row(missing, 0, 12), row(missing, 12, 24), row(good, 0, 24)])
    assert [isinstance(result, Failure) for result in results] == [True, True, False]


def test_a_clip_beyond_the_end_fails_and_the_next_is_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "short.mp4", numbered_frames(48))
    beyond, good = sample([row(path, 30, 90), row(path, 0, 24)])
    assert isinstance(beyond, Failure)
    assert beyond.error_class == "ended_early"
    assert isinstance(good, Clip)


def test_an_image_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    path = write_image(tmp_path / "photo.png", moving_frames(1, 300, 400)[0])
    image = row(path, 0, 1).model_copy(update={"media_kind": "image", "fps": None})
    (clip,) = sample([image])
    assert isinstance(clip, Clip)
    assert clip.key_frames_THWC.shape == (1, 300, 400, 3)
    assert clip.native_luma_THW.shape == (1, 300, 400)


def test_a_crop_shows_the_same_place_in_every_view(tmp_path: Path) -> None:
    path = write_video(tmp_path / "numbers.mp4", numbered_frames(24))
    (clip,) = sample([row(path, 0, 24)])
    assert isinstance(clip, Clip)
    right_half = clip.cropped(Box(left=0.5, top=0, right=1, bottom=1))
    assert right_half.region.left == 0.5
    assert np.array_equal(right_half.luma_THW, clip.luma_THW[:, :, 32:])
    assert np.array_equal(right_half.native_luma_THW, clip.native_luma_THW[:, :, 32:])


@pytest.mark.parametrize(("items", "wanted"), [(8, 3), (5, 8), (1, 4), (129, 16)])
def test_evenly_is_sorted_without_repeats_and_centered(items: int, wanted: int) -> None:
    index = evenly(items, wanted)
    assert len(set(index.tolist())) == min(items, wanted)
    assert list(index) == sorted(index)
    assert abs((index[0] + index[-1]) / 2 - (items - 1) / 2) <= 1
