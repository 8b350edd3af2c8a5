"""Frames are found where they are, whatever the container does with their times."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.media.timeline import Timeline
from pipeline.media.uris import file_uri
from pipeline.media.video import display_size, open_video
from tests.media_files import (
    moving_frames,
    numbered_frames,
    read_number,
    texture,
    write_video,
)

LIMITS = MediaLimits()
NUM_FRAMES = 160
VARIABLE_TIMES_S = [i / 24 + 0.01 * (i % 3) + (0.7 if i > 50 else 0) for i in range(NUM_FRAMES)]
OPEN_GOP = {"x264-params": "open-gop=1:b-adapt=0"}

# name -> arguments of write_video
KINDS: Mapping[str, Mapping[str, Any]] = {
    "plain.mp4": {},
    "b_frames.mp4": {"num_b_frames": 3, "audio": True},
    "b_frames.mkv": {"num_b_frames": 3, "audio": True},
    "late_start.mp4": {"start_s": 2.5, "num_b_frames": 2},
    "late_start.mkv": {"start_s": 2.5, "num_b_frames": 2},
    "late_start.ts": {"start_s": 2.5, "num_b_frames": 2, "format": "mpegts"},
    "variable.mp4": {"times_s": VARIABLE_TIMES_S, "num_b_frames": 2},
    "variable.mkv": {"times_s": VARIABLE_TIMES_S},
    "open_gop.mp4": {"num_b_frames": 3, "codec_options": OPEN_GOP},
    "hevc.mp4": {"codec": "libx265", "num_b_frames": 3},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "one_gop.mp4": {"gop": 1000, "num_b_frames": 2},
    "refresh.mp4": {"codec_options": {"x264-params": "intra-refresh=1"}},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "packed.avi": {"codec": "mpeg4", "num_b_frames": 2},
    "flash.flv": {"num_b_frames": 2},
    "program.mpg": {"codec": "mpeg2video", "fps": 25, "num_b_frames": 2},
}


@pytest.fixture(scope="module")
def render(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("videos")

    def render_once(name: str) -> Path:
        path = folder / name
        if not path.exists():
            write_video(path, numbered_frames(NUM_FRAMES), **KINDS[name])
        return path

    return render_once


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_has_its_number_and_increasing_times(
    name: str, render: Callable[[str], Path]
) -> None:
    with open_video(file_uri(render(name)), LIMITS) as reader:
        frames = list(reader.frames())
    assert [frame.index for frame in frames] == list(range(NUM_FRAMES))
    assert [read_number(frame.image) for frame in frames] == list(range(NUM_FRAMES))
    times_s = [frame.time_s for frame in frames]
    assert times_s[0] == 0.0
    wanted_s = VARIABLE_TIMES_S if "variable" in name else [i / 24 for i in range(NUM_FRAMES)]
    if "fps" not in KINDS[name]:
        assert times_s == pytest.approx(wanted_s, abs=0.002)


@pytest.mark.parametrize("name", KINDS)
def test_a_seek_finds_what_a_full_decode_finds(name: str, render: Callable[[str], Path]) -> None:
    with open_video(file_uri(render(name)), LIMITS) as reader:
        truth = {f.index: (f.time_s, f.image.tobytes()) for f in reader.frames()}
        for index in (159, 7, 121, 120, 119, 61, 155, 0, 93, 96, 95, 51, 150):
            found = next(reader.frames(start=(index, truth[index][0])))
            assert (found.index, found.time_s, found.image.tobytes()) == (index, *truth[index])


@pytest.mark.parametrize("name", ["b_frames.mp4", "b_frames.mkv", "open_gop.mp4", "hevc.mp4"])
def test_a_far_frame_is_reached_by_seeking_not_by_decoding_all(
    name: str, render: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    num_decoded = 0
    time_of = Timeline._time_of

    def count(self: Timeline, frame: av.VideoFrame) -> float:
        nonlocal num_decoded
        num_decoded += 1
        return time_of(self, frame)

    monkeypatch.setattr(Timeline, "_time_of", count)
    with open_video(file_uri(render(name)), LIMITS) as reader:
        time_s = 150 / 24 if name.endswith("mp4") else round(150 / 24, 3)
        assert read_number(next(reader.frames(start=(150, time_s))).image) == 150
    assert num_decoded < 60


def test_a_time_that_no_frame_has_falls_back_to_counting(render: Callable[[str], Path]) -> None:
    with open_video(file_uri(render("plain.mp4")), LIMITS) as reader:
        assert read_number(next(reader.frames(start=(100, 4.1))).image) == 100


def test_spans_and_strides_select_frames(render: Callable[[str], Path]) -> None:
    with open_video(file_uri(render("b_frames.mp4")), LIMITS) as reader:
        span = reader.frames(start=(90, 90 / 24), end_frame=101, stride=5)
        assert [read_number(frame.image) for frame in span] == [90, 95, 100]
        again = reader.frames(start=(10, 10 / 24), end_frame=13)
        assert [read_number(frame.image) for frame in again] == [10, 11, 12]
        with pytest.raises(MediaError, match="160 frames, wanted 200") as caught:
            list(reader.frames(start=(158, 158 / 24), end_frame=200))
        assert caught.value.error_class == "ended_early"


def test_edit_list_leaves_out_what_it_cuts(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", numbered_frames(60), gop=30, num_b_frames=2)
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        old = source.streams.video[0]
        new = target.add_stream_from_template(old)
        assert old.time_base is not None
        shift = round(Fraction(10, 24) / old.time_base)
        for packet in source.demux(old):
            if packet.dts is None or packet.pts is None:
                continue
            packet.pts -= shift  # what lies before time 0 is hidden by an edit list
            packet.dts -= shift
            packet.stream = new
            target.mux(packet)
    with open_video(file_uri(cut), LIMITS) as reader:
        frames = list(reader.frames())
        numbers = [read_number(frame.image) for frame in frames]
        assert numbers == list(range(numbers[0], 60))
        for place in (0, 17, 35, len(frames) - 1):
            found = next(reader.frames(start=(place, frames[place].time_s)))
            assert read_number(found.image) == numbers[place]


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_rotated_video_is_given_upright(rotation_deg: int, tmp_path: Path) -> None:
    upright = texture(48, 96)
    stored = np.rot90(upright, rotation_deg // 90)  # counter-clockwise: undone by the turn
    path = write_video(
        tmp_path / "turned.mp4", np.stack([stored] * 3), rotation_deg=rotation_deg, quality=1
    )
    with open_video(file_uri(path), LIMITS) as reader:
        probe = reader.probe
        image = next(reader.frames()).image
        small = next(reader.frames(size_HW=(24, 48))).image
    assert probe.rotation_deg == rotation_deg
    assert (probe.height, probe.width) == (48, 96) == display_size(probe)
    assert image.shape == (48, 96, 3)
    assert small.shape == (24, 48, 3)
    assert np.abs(image.astype(int) - upright).mean() < 12


@pytest.mark.parametrize(
    ("ratio", "rotation_deg", "size"),
    [
        (Fraction(4, 3), 0, (48, 85)),
        (Fraction(8, 9), 0, (48, 57)),
        (Fraction(4, 3), 90, (85, 48)),
        (Fraction(400), 0, (48, 64)),
    ],
)
def test_sizes_are_square_pixels(
    ratio: Fraction, rotation_deg: int, size: tuple[int, int], tmp_path: Path
) -> None:
    path = write_video(
        tmp_path / "wide.mp4",
        moving_frames(3),
        sample_aspect_ratio=ratio,
        rotation_deg=rotation_deg,
    )
    with open_video(file_uri(path), LIMITS) as reader:
        assert reader.display_size == size == display_size(reader.probe)
        assert next(reader.frames()).image.shape == (*size, 3)


def test_probe_states_what_was_rendered(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_frames(30), fps=25, audio=True)
    with open_video(file_uri(path), LIMITS) as reader:
        probe = reader.probe
    assert (probe.media_kind, probe.container, probe.codec) == ("video", "mov", "h264")
    assert (probe.height, probe.width, probe.pix_fmt) == (48, 64, "yuv420p")
    assert (probe.fps, probe.is_vfr, probe.num_frames) == (25.0, False, 30)
    assert probe.duration_s == pytest.approx(1.2)
    assert probe.has_audio


@pytest.mark.parametrize("name", ["plain.mp4", "b_frames.mkv", "variable.mp4", "variable.mkv"])
def test_variable_rate_is_told_from_rounded_times(name: str, render: Callable[[str], Path]) -> None:
    with open_video(file_uri(render(name)), LIMITS) as reader:
        assert reader.probe.is_vfr == ("variable" in name)


def test_ten_bit_and_full_range_keep_their_colors(tmp_path: Path) -> None:
    frames = np.full((2, 48, 64, 3), (200, 100, 50), np.uint8)
    for name, options in {
        "ten.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
        "full.mp4": {"pix_fmt": "yuvj420p"},
        "four.mp4": {"pix_fmt": "yuv444p"},
    }.items():
        path = write_video(tmp_path / name, frames, quality=1, **options)  # type: ignore[arg-type]
        with open_video(file_uri(path), LIMITS) as reader:
            color = next(reader.frames()).image.reshape(-1, 3).mean(axis=0)
            gray = next(reader.frames(pix_fmt="gray")).image.mean()
            blue_first = next(reader.frames(pix_fmt="bgr24")).image.reshape(-1, 3).mean(axis=0)
        assert color == pytest.approx([200, 100, 50], abs=4)
        assert gray == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50, abs=4)
        assert blue_first[::-1] == pytest.approx(color, abs=1.5)


def test_limits_are_checked_with_both_values_in_the_reason(tmp_path: Path) -> None:
    uri = file_uri(write_video(tmp_path / "a.mp4", moving_frames(48), audio=True))
    for limits, error_class in (
        (MediaLimits(max_video_pixels=1000), "too_many_pixels"),
        (MediaLimits(max_duration_s=1), "too_long"),
        (MediaLimits(max_streams=1), "too_many_streams"),
        (MediaLimits(max_num_bytes=10), "too_many_bytes"),
        (MediaLimits(max_decode_s=1e-9), "timeout"),
    ):
        with pytest.raises(MediaError, match="limit") as caught, open_video(uri, limits) as reader:
            list(reader.av_frames())
        assert caught.value.error_class == error_class


def test_time_spent_by_the_caller_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("pipeline.media.container.time.perf_counter", lambda: now_s)
    path = write_video(tmp_path / "a.mp4", moving_frames(10))
    with open_video(file_uri(path), MediaLimits(max_decode_s=1)) as reader:
        for _ in reader.av_frames():
            now_s += 60


def test_repeated_times_are_told_apart(tmp_path: Path) -> None:
    times_s = [i / 24 if i != 41 else 40 / 24 + 1e-4 for i in range(80)]
    path = write_video(tmp_path / "twin.mkv", numbered_frames(80), times_s=times_s)
    with open_video(file_uri(path), LIMITS) as reader:
        frames = list(reader.frames())
        assert all(b.time_s > a.time_s for a, b in pairwise(frames))
        assert read_number(next(reader.frames(start=(41, frames[41].time_s))).image) == 41
