"""Clips whose cuts are known because the test rendered them."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.engine.work import Part
from pipeline.split.config import SplitConfig
from pipeline.split.tables import SplitTables, split_fingerprint
from pipeline.split.worker import SplitWorker, load_transnet, record_failure, split_source
from pipeline.storage import Store
from schemas.source import Probe, SourceRow
from schemas.status import Failure

FAST = SplitConfig(transnet="off", min_clip_s=0.5)
HEIGHT, WIDTH = 96, 160
Picture = NDArray[np.uint8]


def scene(seed: int) -> Picture:
    """A texture wider than the picture, so that a window on it can move."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (6, 20, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((16, 16, 1), np.uint8))


def shot(seed: int, num_frames: int, *, speed: int = 0) -> list[Picture]:
    return [scene(seed)[:, speed * t % 160 : speed * t % 160 + WIDTH] for t in range(num_frames)]


def render(
    path: Path,
    frames: Sequence[Picture],
    *,
    pts: Callable[[int], int] = lambda index: index,
    b_frames: int = 0,
) -> SourceRow:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "12", "bf": str(b_frames), "threads": "1"}
        stream.codec_context.time_base = stream.time_base = Fraction(1, 25)
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = pts(index), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return SourceRow(source_uri=path.as_uri(), listing_id=path.name, sha256="ab" * 32)


def cuts_of(row: SourceRow, config: SplitConfig = FAST) -> list[int]:
    return [shot_row.frame for shot_row in split_source(row, config, None).shots]


def test_cuts_are_found_at_the_frames_where_they_were_made(tmp_path: Path) -> None:
    row = render(tmp_path / "a.mp4", shot(1, 30) + shot(2, 25) + shot(3, 40, speed=2))
    split = split_source(row, FAST, None)
    assert [shot_row.frame for shot_row in split.shots] == [30, 55]
    assert [(c.start_frame, c.end_frame) for c in split.clips] == [(0, 30), (30, 55), (55, 95)]
    assert [c.fps for c in split.clips] == pytest.approx([25, 25, 25])


@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize(
    "pts",
    [lambda index: index + 50, lambda index: index + index // 3],
    ids=["non_zero_start", "every_third_frame_missing"],
)
def test_cuts_are_right_to_the_frame_whatever_the_times(
    tmp_path: Path, b_frames: int, pts: Callable[[int], int]
) -> None:
    frames = shot(1, 31, speed=1) + shot(2, 27) + shot(3, 33, speed=1)
    row = render(tmp_path / "a.mp4", frames, pts=pts, b_frames=b_frames)
    clips = split_source(row, FAST, None).clips
    assert [clip.start_frame for clip in clips] == [0, 31, 58]
    expected_s = [(pts(index) - pts(0)) / 25 for index in (0, 31, 58)]
    assert [clip.start_s for clip in clips] == pytest.approx(expected_s, abs=1e-3)
    assert [clip.is_vfr for clip in clips] == [pts(3) - pts(0) != 3] * 3


def test_a_flash_is_no_cut(tmp_path: Path) -> None:
    frames = shot(1, 80, speed=1)
    for index in (30, 31):
        frames[index] = np.clip(frames[index].astype(int) + 90, 0, 255).astype(np.uint8)
    assert cuts_of(render(tmp_path / "a.mp4", frames)) == []


def test_a_fast_pan_is_no_cut(tmp_path: Path) -> None:
    assert cuts_of(render(tmp_path / "a.mp4", shot(1, 30, speed=5))) == []


def test_a_fade_through_black_is_trimmed_from_both_clips(tmp_path: Path) -> None:
    first, second = shot(1, 60), shot(2, 60)
    for index in range(20):
        first[40 + index] = (first[40 + index] * (1 - (index + 1) / 20)).astype(np.uint8)
        second[index] = (second[index] * (index / 20)).astype(np.uint8)
    split = split_source(render(tmp_path / "a.mp4", first + second), FAST, None)
    (fade,) = split.shots
    assert fade.kind == "fade"
    assert 56 <= fade.frame <= 61
    before, after = split.clips
    assert 38 <= before.end_frame <= 44
    assert 76 <= after.start_frame <= 82


def test_long_shots_become_equal_parts_and_short_ones_a_row_with_the_reason(tmp_path: Path) -> None:
    row = render(tmp_path / "a.mp4", shot(1, 90) + shot(2, 10))
    config = FAST.model_copy(update={"max_clip_s": 1.3})
    *parts, dropped = split_source(row, config, None).clips
    assert [(p.start_frame, p.end_frame) for p in parts] == [(0, 30), (30, 60), (60, 90)]
    assert not dropped.ok
    assert (dropped.error_class, dropped.num_frames) == ("too_short", 10)
    assert dropped.clip_id != ""


def test_the_clear_start_passes_over_blur_but_never_beyond_the_opening(tmp_path: Path) -> None:
    frames = shot(1, 100, speed=1)
    for index in range(3):
        blurred = np.mean([np.roll(frames[index], s, axis=1) for s in range(-9, 10)], axis=0)
        frames[index] = blurred.astype(np.uint8)
    (clip,) = split_source(render(tmp_path / "a.mp4", frames), FAST, None).clips
    assert clip.clear_frame == 3
    assert clip.clear_s == pytest.approx(3 / 25)
    narrow = FAST.model_copy(
        update={"clear_start": FAST.clear_start.model_copy(update={"max_opening_share": 0.01})}
    )
    (clip,) = split_source(row_of(tmp_path / "a.mp4"), narrow, None).clips
    assert clip.clear_frame <= 1


def row_of(path: Path) -> SourceRow:
    return SourceRow(source_uri=path.as_uri(), listing_id="a", sha256="ab" * 32)


def test_what_lies_before_damage_stays_usable_and_the_damage_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    row = render(path, shot(1, 40) + shot(2, 40))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.8)])
    clips = split_source(row, FAST, None).clips
    assert clips[0].ok
    assert (clips[0].start_frame, clips[0].end_frame) == (0, 40)
    assert all(clip.ok or clip.error_class for clip in clips)


def test_a_source_that_does_not_open_is_one_failed_row(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("not a film")
    (clip,) = split_source(row_of(path), FAST, None).clips
    assert not clip.ok
    assert clip.clip_id == ""


@pytest.mark.parametrize("num_frames", [1, 2, 40])
def test_a_clip_of_one_color_or_one_frame_has_no_boundary(tmp_path: Path, num_frames: int) -> None:
    gray = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    row = render(tmp_path / "a.mp4", [gray] * num_frames)
    everywhere = FAST.model_copy(update={"transnet": "all"})
    split = split_source(row, everywhere, load_transnet(everywhere))
    assert (split.shots, split.candidates) == ([], [])
    (clip,) = split.clips
    assert (clip.start_frame, clip.end_frame) == (0, num_frames)
    assert clip.ok == (num_frames == 40)
    assert clip.error_class == (None if num_frames == 40 else "too_short")


def test_an_image_is_a_clip_of_one_frame() -> None:
    probe = Probe(media_kind="image", container="jpeg", codec="mjpeg", width=64, height=48)
    row = SourceRow(source_uri="file:///x.jpg", listing_id="x", sha256="cd" * 32, probe=probe)
    (clip,) = split_source(row, FAST, None).clips
    assert clip.ok
    assert (clip.num_frames, clip.width, clip.height, clip.fps) == (1, 64, 48, None)


def test_the_worker_writes_three_tables_and_the_same_bytes_again(tmp_path: Path) -> None:
    good = render(tmp_path / "a.mp4", shot(1, 30) + shot(2, 30))
    bad = row_of(tmp_path / "absent.mp4")
    part = Part(key="k", items=(good.model_dump(mode="json"), bad))
    written = []
    for name in ("one", "two"):
        worker = SplitWorker(str(tmp_path / name), FAST)
        worker.setup()
        report = worker.process(part)
        assert (report.num_ok, report.num_failed) == (1, 1)
        tables = SplitTables.at(Store(str(tmp_path / name)), split_fingerprint(FAST))
        found = tables.find_report(part)
        assert found is not None
        assert (found.num_ok, found.reasons) == (report.num_ok, report.reasons)
        assert tables.shots.read().column("frame").to_pylist() == [30]
        written.append(tables.clips.store.read_bytes(tables.clips.part_path("k")))
    assert written[0] == written[1]


def test_a_lost_worker_leaves_a_failed_row_for_each_source(tmp_path: Path) -> None:
    tables = SplitTables.at(Store(str(tmp_path)), "f")
    part = Part(key="k", items=(row_of(tmp_path / "a.mp4"),))
    assert tables.find_report(part) is None
    report = record_failure(tables, part, Failure(error_class="timeout", error="60 s"))
    assert (report.num_ok, dict(report.reasons)) == (0, {"timeout": 1})
    assert tables.clips.read().column("error_class").to_pylist() == ["timeout"]
