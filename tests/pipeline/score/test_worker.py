from pathlib import Path

import numpy as np
import pytest

from pipeline.engine.work import Part
from pipeline.evaluate.motion import CameraMotion, render_motion
from pipeline.media.config import MediaLimits
from pipeline.score.config import CameraConfig, ScoreConfig, SensitiveConfig
from pipeline.score.tables import (
    SCORE_STAGES,
    ScoreItem,
    plan_score_parts,
    score_fingerprints,
    score_tables,
    stages_for,
)
from pipeline.score.worker import ScoreWorker, find_score_report, record_score_failure
from pipeline.storage import Store
from schemas.clip import ClipRow
from schemas.scores import ClipScores
from schemas.status import Failure
from tests.media_files import write_image, write_video
from tests.pipeline.score.clips import picture

CONFIG = ScoreConfig()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[ClipRow]:
    """Two clips of a letterboxed pan, a clip of a missing file, and an image."""
    folder = tmp_path_factory.mktemp("media")
    motion = CameraMotion(12.0, 180.0)
    frames = np.stack(
        list(render_motion(picture(), motion, size_HW=(240, 426), fps=24.0, num_frames=60))
    )
    frames[:, :30] = 0
    frames[:, -30:] = 0
    video = write_video(folder / "pan.mp4", frames)
    photo = write_image(folder / "photo.png", picture(240, 320))
    common = {"source_sha256": "a" * 64, "fps": 24.0, "width": 426, "height": 240}

    def clip(clip_id: str, path: Path, start: int, end: int) -> ClipRow:
        return ClipRow.model_validate(
            common
            | {
                "clip_id": clip_id,
                "source_uri": path.absolute().as_uri(),
                "media_kind": "video",
                "start_frame": start,
                "end_frame": end,
                "clear_frame": start,
                "start_s": start / 24,
                "clear_s": start / 24,
                "end_s": end / 24,
            }
        )

    image = clip("d" * 32, photo, 0, 1).model_copy(update={"media_kind": "image", "fps": None})
    return [
        clip("b" * 32, video, 0, 30),
        clip("c" * 32, video, 30, 60),
        clip("e" * 32, folder / "missing.mp4", 0, 30),
        image,
    ]


@pytest.fixture(scope="module")
def scored(rows: list[ClipRow], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("output")
    run(output, rows, CONFIG)
    return output


def run(output: Path, rows: list[ClipRow], config: ScoreConfig) -> list[Part]:
    tables = score_tables(Store(str(output)), config)
    parts = plan_score_parts(rows, tables, clips_per_part=2)
    worker = ScoreWorker(str(output), config, MediaLimits())
    worker.setup()
    for part in parts:
        report = worker.process(part)
        assert report.num_ok + report.num_failed == len(part.items)
        assert find_score_report(tables, part) is not None
    return parts


def read(output: Path, stage: str, config: ScoreConfig = CONFIG) -> dict[str, dict[str, object]]:
    table = score_tables(Store(str(output)), config)[stage].read()
    return {str(row["clip_id"]): row for row in table.to_pylist()}


def test_every_clip_has_one_row_in_every_table_that_applies(
    scored: Path, rows: list[ClipRow]
) -> None:
    assert set(SCORE_STAGES) == set(ClipScores.model_fields)
    for stage in SCORE_STAGES:
        found = read(scored, stage)
        assert set(found) == {r.clip_id for r in rows if stage in stages_for(r.media_kind)}
        missing = found["e" * 32]
        assert not missing["ok"]
        assert missing["error_class"] == "not_found"
        for clip_id in set(found) - {"e" * 32}:
            assert found[clip_id]["ok"], (stage, clip_id, found[clip_id]["error"])


def test_motion_is_measured_inside_the_clean_crop(scored: Path) -> None:
    assert read(scored, "borders")["b" * 32]["top_px"] == 30
    box = read(scored, "crop")["b" * 32]["box"]
    assert box == {"left": 0.0, "top": 30 / 240, "right": 1.0, "bottom": 210 / 240}
    inside = np.hypot(180, 426) / np.hypot(240, 426)
    speed = read(scored, "motion")["b" * 32]["camera_speed"]
    assert speed == pytest.approx(12.0 / inside, rel=0.1)
    assert read(scored, "camera")["b" * 32]["movement"] in ("pan_right", "tilt_right")


def test_a_second_run_has_nothing_to_do(scored: Path, rows: list[ClipRow]) -> None:
    assert run(scored, rows, CONFIG) == []


def test_a_changed_stage_is_measured_alone_and_sees_the_same_crop(
    scored: Path, rows: list[ClipRow]
) -> None:
    changed = ScoreConfig(camera=CameraConfig(static_speed=0.4))
    before, after = score_fingerprints(CONFIG), score_fingerprints(changed)
    assert [name for name in SCORE_STAGES if before[name] != after[name]] == ["camera"]
    parts = run(scored, rows, changed)
    assert {item.stages for part in parts for item in part.items} == {("camera",)}
    old, new = read(scored, "camera"), read(scored, "camera", changed)
    assert old["b" * 32]["truck"] == new["b" * 32]["truck"]


def test_what_the_crop_depends_on_changes_what_is_seen_inside_it() -> None:
    before = score_fingerprints(CONFIG)
    dark = CONFIG.borders.model_copy(update={"max_dark_luma": 30})
    after = score_fingerprints(ScoreConfig(borders=dark))
    assert {n for n in SCORE_STAGES if before[n] == after[n]} == {"text", "overlays"}
    more = score_fingerprints(ScoreConfig(sensitive=SensitiveConfig(num_frames=2)))
    assert {n for n in SCORE_STAGES if before[n] != more[n]} == {"sensitive"}


def test_the_plan_does_not_depend_on_the_order_of_the_clips(
    rows: list[ClipRow], tmp_path: Path
) -> None:
    tables = score_tables(Store(str(tmp_path)), CONFIG)
    plan = plan_score_parts(rows, tables, clips_per_part=2)
    assert plan == plan_score_parts(rows[::-1], tables, clips_per_part=2)
    assert sum(len(part.items) for part in plan) == len(rows)
    assert all(len(part.items) <= 2 for part in plan)


def test_the_same_part_gives_the_same_bytes(
    scored: Path, rows: list[ClipRow], tmp_path: Path
) -> None:
    run(tmp_path, rows, CONFIG)
    for stage in ("camera", "text", "quality", "sensitive"):
        first, second = (
            score_tables(Store(str(output)), CONFIG)[stage] for output in (scored, tmp_path)
        )
        assert first.done_keys() == second.done_keys()
        for key in first.done_keys():
            assert first.marker(key)["sha256"] == second.marker(key)["sha256"]


def test_a_lost_clip_gets_its_failed_rows(rows: list[ClipRow], tmp_path: Path) -> None:
    tables = score_tables(Store(str(tmp_path)), CONFIG)
    part = Part("k", (ScoreItem(rows[0], stages_for("video")),))
    failure = Failure(error_class="worker_lost", error="twice")
    report = record_score_failure(tables, part, failure)
    assert (report.num_ok, report.num_failed) == (0, 1)
    assert all(
        tables[s].read().to_pylist()[0]["error_class"] == "worker_lost" for s in SCORE_STAGES
    )
    assert plan_score_parts(rows[:1], tables, clips_per_part=8) == []


def test_a_half_written_part_is_removed(rows: list[ClipRow], tmp_path: Path) -> None:
    tables = score_tables(Store(str(tmp_path)), CONFIG)
    part = Part("k", (ScoreItem(rows[0], ("borders", "text")),))
    only_borders = Part("k", (ScoreItem(rows[0], ("borders",)),))
    record_score_failure(tables, only_borders, Failure(error_class="x", error="x"))
    assert find_score_report(tables, part) is None
    assert tables["borders"].done_keys() == []
