"""From clips to rows: what is written, what is kept when the model is lost, what is asked again."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.caption.config import CaptionConfig
from pipeline.caption.describe_pass import describe_pass, num_workers, worker_resources
from pipeline.caption.describe_worker import DescribeWorker
from pipeline.caption.description import (
    descriptions_fingerprint,
    descriptions_table,
    read_descriptions,
)
from pipeline.caption.frames import plan_windows, window_requests
from pipeline.caption.usage import caption_usage
from pipeline.engine.errors import HaltError
from pipeline.engine.work import PartReport
from pipeline.media.config import MediaLimits
from pipeline.storage import Store
from pipeline.tier.records import ClipRecord
from schemas.status import Failure
from tests.media_files import numbered_frames, read_number, write_video
from tests.pipeline.caption.chat_server import ChatServer, Question, Reply, serving, well
from tests.pipeline.caption.clips import numbered_clips, records_of
from tests.pipeline.tier.tables import ClipMaker


def config_of(url: str = "http://127.0.0.1:1/v1", **changes: Any) -> CaptionConfig:
    tree: dict[str, Any] = {
        "captioner": "endpoint",
        "vlm_clips_per_part": 4,
        "vlm": {"frames": {"num_frames": 2}},
        "endpoint": {"url": url, "model": "seer", "backoff_s": 0.005, "concurrency": 1},
    }
    for path, value in changes.items():
        *sections, name = path.split("__")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return CaptionConfig.model_validate(tree)


def describe(records: list[ClipRecord], folder: Path, config: CaptionConfig) -> list[PartReport]:
    """What is left of the pass, part by part, in this process."""
    table = descriptions_table(Store(str(folder)), "f")
    pass_ = describe_pass("describe", records, table, config, MediaLimits(), item_timeout_s=60)
    worker = pass_.workers[0].factory()
    worker.setup()
    return [worker.process(part) for part in pass_.parts]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return descriptions_table(Store(str(folder)), "f").read().to_pylist()


def test_every_clip_has_a_row_with_its_words_or_its_reason_and_where_they_come_from(
    tmp_path: Path,
) -> None:
    records = numbered_clips(tmp_path, 3)
    lost = ClipMaker()
    lost.add(source="lost", uri=(tmp_path / "lost.mp4").as_uri(), num_frames=30)
    records += records_of(lost, tmp_path / "more")

    def shy(question: Question) -> Reply:
        refusal = question.words() | {"dense_description": "I cannot describe what is not there."}
        return Reply(json.dumps(refusal)) if question.numbers[0] < 20 else well(question)

    with serving(ChatServer(shy)) as server:
        (report,) = describe(records, tmp_path, config_of(server.url))
    assert (report.num_ok, report.num_failed) == (2, 2)
    assert report.reasons == {"caption_refusal": 1, "not_found": 1}
    rows = {row["clip_id"]: row for row in rows_of(tmp_path)}
    assert set(rows) == {record.clip.clip_id for record in records}
    good = rows[records[1].clip.clip_id]
    assert good["short_description"] == "The numbers are [25, 35]."
    assert (good["backend"], good["model"], good["revision"]) == ("endpoint", "seer", "unknown")
    assert (good["constraint"], good["num_windows"], good["num_answers"]) == ("json_schema", 1, 1)
    assert (good["prompt_tokens"], good["answer_tokens"]) == (100, 50)
    assert json.loads(good["sampling"])["temperature"] == 0.2
    refused = rows[records[0].clip.clip_id]
    assert (refused["ok"], refused["num_answers"], refused["short_description"]) == (False, 3, None)
    assert "I cannot describe" in refused["error"]


def test_a_lost_server_loses_no_caption_and_a_rerun_asks_only_for_the_rest(tmp_path: Path) -> None:
    records = numbered_clips(tmp_path, 6)
    server = ChatServer()

    with serving(server):
        config = config_of(server.url, endpoint__num_tries=2)

        def fall(question: Question) -> Reply:
            if len(server.questions) > 5:
                server.key = "nobody has it"
                return Reply(drop=True)
            return well(question)

        server.script = fall
        with pytest.raises(
            HaltError, match=r"key is refused.*1 clips of this part are kept, 1 are"
        ):
            describe(records, tmp_path, config)
    table = descriptions_table(Store(str(tmp_path)), "f")
    assert len(table.done_items("clip_id")) == 5

    with serving(ChatServer()) as server:
        describe(records, tmp_path, config_of(server.url))
        assert len(server.questions) == 1
    assert table.done_items("clip_id") == {record.clip.clip_id for record in records}
    assert all(row["ok"] for row in rows_of(tmp_path))


def test_a_server_that_is_not_there_halts_the_worker_at_its_start(tmp_path: Path) -> None:
    worker = DescribeWorker(str(tmp_path), "f", config_of(), MediaLimits())
    with pytest.raises(HaltError, match="no server answers there"):
        worker.setup()


def test_a_worker_that_goes_closes_its_backend(tmp_path: Path) -> None:
    worker = DescribeWorker(str(tmp_path), "f", config_of(), MediaLimits())
    loop = worker.backend._loop  # type: ignore[attr-defined]
    del worker
    assert loop.is_closed()


def test_long_clips_are_asked_about_window_by_window_and_become_one_caption(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", numbered_frames(60))
    maker = ClipMaker()
    maker.add(uri=path.as_uri(), num_frames=60, size_WH=(64, 32))
    (record,) = records_of(maker, tmp_path / "tables")
    with serving(ChatServer()) as server:
        describe([record], tmp_path, config_of(server.url, vlm__frames__window_s=1.0))
        assert [question.numbers for question in server.questions] == [[5, 15], [25, 35], [45, 55]]
    (row,) = rows_of(tmp_path)
    assert (row["num_windows"], row["prompt_tokens"]) == (3, 300)
    assert row["short_description"] == "The numbers are [5, 15]."
    for numbers in ("[5, 15]", "[25, 35]", "[45, 55]"):
        assert numbers in row["dense_description"]


def test_windows_cover_a_clip_and_keep_the_budget() -> None:
    frames = config_of(vlm__frames__num_frames=4, vlm__frames__window_s=2.0).vlm.frames
    assert [list(w) for w in plan_windows(48, 24.0, frames)] == [[6, 18, 30, 42]]
    windows = [list(window) for window in plan_windows(129, 24.0, frames)]
    assert [len(window) for window in windows] == [4, 4, 4]
    assert windows == sorted(windows)
    assert max(max(window) for window in windows) < 129
    assert [list(w) for w in plan_windows(3, 24.0, frames)] == [[0, 1, 2]]


def test_pictures_are_made_small_and_their_times_are_told(tmp_path: Path) -> None:
    (record,) = numbered_clips(tmp_path, 1, num_frames=24)
    frames = config_of(vlm__frames__max_side=32, vlm__frames__num_frames=3).vlm.frames
    (request,) = window_requests(record, frames, MediaLimits())
    assert request.frames_THWC.shape == (3, 16, 32, 3)
    assert request.times_s == (round(4 / 24, 3), 0.5, round(20 / 24, 3))
    full = config_of(vlm__frames__num_frames=3).vlm.frames
    (request,) = window_requests(record, full, MediaLimits())
    assert [read_number(image) for image in request.frames_THWC] == [4, 12, 20]


@pytest.mark.parametrize(
    ("change", "is_new"),
    [
        ({"endpoint__model": "other"}, True),
        ({"endpoint__revision": "2"}, True),
        ({"vlm__instructions": "Say what you see, as briefly as you can."}, True),
        ({"vlm__sampling__temperature": 0.3}, True),
        ({"vlm__frames__num_frames": 3}, True),
        ({"vlm__answer__styles": ["realistic"]}, True),
        ({"endpoint__url": "http://elsewhere/v1"}, False),
        ({"endpoint__concurrency": 9}, False),
        ({"endpoint__timeout_s": 1.0}, False),
        ({"price__gpu_hour": 2.0}, False),
        ({"vlm_clips_per_part": 7}, False),
        ({"min_camera_confidence": 0.9}, False),
        ({"tags__dark_below_luma": 10.0}, False),
    ],
)
def test_only_what_changes_the_words_asks_the_model_again(
    change: dict[str, Any], is_new: bool
) -> None:
    tables = {"crop": "1", "motion": "1"}
    before = descriptions_fingerprint(config_of(), tables)
    assert (descriptions_fingerprint(config_of(**change), tables) != before) == is_new
    assert descriptions_fingerprint(config_of(), tables | {"motion": "2"}) == before
    assert descriptions_fingerprint(config_of(), tables | {"crop": "2"}) != before


def test_rates_and_cost_come_from_the_rows(tmp_path: Path) -> None:
    records = numbered_clips(tmp_path, 2)
    with serving(ChatServer()) as server:
        config = config_of(
            server.url, price__million_prompt_tokens=10.0, price__million_answer_tokens=20.0
        )
        describe(records, tmp_path, config)
    table = descriptions_table(Store(str(tmp_path)), "f")
    usage = caption_usage(table, table.done_keys(), elapsed_s=4.0, num_gpus=0.0, price=config.price)
    assert (usage.prompt_tokens, usage.answer_tokens, usage.num_answers) == (200, 100, 2)
    assert usage.cost == pytest.approx(200 * 10e-6 + 100 * 20e-6)
    rates, cost = usage.lines()
    assert "0.50 clips/s, 50 prompt tokens/s, 25 answer tokens/s" in rates
    assert cost.startswith("cost: 0.0040 USD, 2.0000 per 1000 clips")
    owned = usage.model_copy(update={"gpu_hours": 0.5, "cost": None})
    rates, cost = owned.lines()
    assert "4 clips per GPU-hour" in rates
    assert "unknown" in cost


def test_a_dead_worker_leaves_a_row_that_later_captions_can_read(tmp_path: Path) -> None:
    (record,) = numbered_clips(tmp_path, 1)
    table = descriptions_table(Store(str(tmp_path)), "f")
    config = config_of()
    pass_ = describe_pass("describe", [record], table, config, MediaLimits(), item_timeout_s=1)
    failure = Failure(error_class="worker_died", error="killed")
    pass_.record_failure(pass_.parts[0], failure)
    clip_id = record.clip.clip_id
    assert read_descriptions(table, [clip_id]) == {clip_id: failure}


def test_the_model_is_named_and_gpus_are_asked_for_where_it_runs() -> None:
    with pytest.raises(ValueError, match=r"needs \[caption.transformers\] model"):
        CaptionConfig(captioner="transformers")
    remote, measured = config_of(), CaptionConfig()
    launched = config_of(endpoint__launch={"server": "vllm", "num_gpus": 2})
    local = CaptionConfig.model_validate(
        {"captioner": "transformers", "transformers": {"model": "m"}}
    )
    gpus = [worker_resources(config).num_gpus for config in (measured, remote, launched, local)]
    assert gpus == [0, 0, 2, 1]
    assert (num_workers(remote), num_workers(local)) == (1, None)
