"""The sample window: constant rate, never outside of the clip, the right frames."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.timing import measure_rate
from pipeline.media.window import (
    effective_fps,
    max_num_samples,
    sample_times,
    sample_window,
    select_samples,
)
from schemas.clip import ClipRow


@dataclass(frozen=True)
class Shown:
    index: int
    time_s: float


def clip_of(
    times_s: list[float], *, start: int = 0, clear: int = 0, is_vfr: bool = False
) -> ClipRow:
    rate = measure_rate(times_s)
    assert rate is not None
    assert rate.is_vfr == is_vfr
    return ClipRow(
        clip_id="a",
        source_uri="file:///a",
        source_sha256="b",
        media_kind="video",
        start_frame=start,
        end_frame=start + len(times_s),
        start_s=times_s[0],
        end_s=times_s[-1] + 1 / rate.fps,
        clear_frame=start + clear,
        clear_s=times_s[clear],
        fps=rate.fps,
        is_vfr=rate.is_vfr,
    )


def picked(times_s: list[float], clip: ClipRow, num_frames: int = 129) -> list[int]:
    window = sample_window(clip, num_frames)
    frames = [Shown(clip.start_frame + i, t) for i, t in enumerate(times_s)]
    read = [f for f in frames if window.start_frame <= f.index < window.end_frame]
    return [frame.index for frame in select_samples(read, window)]


@pytest.mark.parametrize(
    ("fps", "rate", "stride"),
    [
        (24, 24, 1),
        (30, 30, 1),
        (32, 32, 1),
        (33, 16.5, 2),
        (50, 25, 2),
        (60, 30, 2),
        (120, 30, 4),
        (12, 12, 1),
    ],
)
def test_high_rates_are_divided_by_a_whole_number(fps: float, rate: float, stride: int) -> None:
    times_s = [i / fps for i in range(300)]
    clip = clip_of(times_s, start=7, clear=4)
    assert effective_fps(clip) == pytest.approx(rate)
    assert picked(times_s, clip, 33) == [11 + stride * i for i in range(33)]
    wanted_s = sample_times(clip, 33)
    assert wanted_s == pytest.approx([times_s[4 + stride * i] for i in range(33)])


def test_ntsc_clips_above_the_limit_keep_their_fraction() -> None:
    clip = clip_of([i * 1001 / 60_000 for i in range(300)])
    assert effective_fps(clip) == pytest.approx(30_000 / 1001)


def test_a_short_clip_gives_what_it_has() -> None:
    times_s = [i / 24 for i in range(40)]
    clip = clip_of(times_s, clear=3)
    assert max_num_samples(clip) == 37
    assert picked(times_s, clip) == list(range(3, 40))
    assert max_num_samples(clip_of([i / 60 for i in range(40)])) == 20


def test_variable_rate_takes_the_nearest_frame_for_each_time() -> None:
    # 30 frames/s of which every tenth is missing: nearest usual constant rate is 25 or 30.
    times_s = [i / 30 for i in range(300) if i % 10 != 9]
    clip = clip_of(times_s, is_vfr=True)
    fps = effective_fps(clip)
    assert fps in (25.0, 30_000 / 1001, 30.0)
    indices = picked(times_s, clip, 97)
    assert len(indices) == 97
    for index, wanted_s in zip(indices, sample_times(clip, 97), strict=True):
        best_s = min(abs(t - wanted_s) for t in times_s)
        assert abs(times_s[index] - wanted_s) == pytest.approx(best_s, abs=1e-9)


def test_a_long_still_is_held() -> None:
    times_s = [0.0, 1 / 24, 1.0, *(1 + i / 24 for i in range(1, 60))]
    clip = clip_of(times_s, is_vfr=True)
    indices = picked(times_s, clip, 33)
    assert indices.count(1) > 5
    assert indices == sorted(indices)


@given(
    gaps=st.lists(st.floats(0.005, 0.3), min_size=2, max_size=120),
    clear=st.integers(0, 1),
    num_frames=st.sampled_from([33, 65, 97, 129]),
)
def test_windows_stay_inside_their_clips(gaps: list[float], clear: int, num_frames: int) -> None:
    times_s = [0.0]
    for gap in gaps:
        times_s.append(times_s[-1] + gap)
    rate = measure_rate(times_s)
    assert rate is not None
    clip = clip_of(times_s, start=5, clear=clear, is_vfr=rate.is_vfr)
    count = max_num_samples(clip)
    if count == 0:
        return
    indices = picked(times_s, clip, num_frames)
    assert len(indices) == min(count, num_frames) == len(sample_times(clip, num_frames))
    assert indices == sorted(indices)
    assert clip.clear_frame <= indices[0]
    assert indices[-1] < clip.end_frame
    assert sample_times(clip, num_frames)[-1] < clip.end_s


def test_an_image_is_one_sample() -> None:
    image = ClipRow(
        clip_id="a",
        source_uri="file:///a.jpg",
        source_sha256="b",
        media_kind="image",
        end_frame=1,
    )
    assert sample_times(image) == [0.0]
    assert sample_window(image).end_frame == 1


def test_a_failed_clip_has_no_window() -> None:
    failed = ClipRow(
        ok=False,
        error_class="short",
        clip_id="a",
        source_uri="file:///a",
        source_sha256="b",
        media_kind="video",
    )
    with pytest.raises(ValueError, match="no sample"):
        sample_window(failed)


@pytest.mark.parametrize(
    ("times_s", "fps", "is_vfr"),
    [
        ([i / 24 for i in range(100)], 24, False),
        ([round(i / 30, 3) for i in range(100)], 30, False),  # milliseconds of Matroska
        ([i / 24 + (0.2 if i > 50 else 0) for i in range(100)], 99 / (99 / 24 + 0.2), True),
        ([0.0, 0.04], 25, False),
    ],
)
def test_rates_are_measured(times_s: list[float], fps: float, is_vfr: bool) -> None:
    rate = measure_rate(times_s)
    assert rate is not None
    assert rate.fps == pytest.approx(fps, rel=1e-3)
    assert rate.is_vfr == is_vfr


def test_one_frame_has_no_rate() -> None:
    assert measure_rate([0.0]) is None
