import itertools
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.media.window import effective_fps, max_num_samples
from pipeline.storage import Store
from pipeline.tier.config import TiersConfig, load_tiers
from pipeline.tier.explain import UnknownClipError, explain_clip
from pipeline.tier.funnel import tier_funnel
from pipeline.tier.geometry import (
    available_frames,
    bucket_sizes,
    clean_pixels,
    effective_rates,
    fit,
)
from pipeline.tier.join import CLIPS, join_tables, load_joined, open_table
from pipeline.tier.records import read_records
from pipeline.tier.rules import Candidates, decide
from schemas.clip import ClipRow
from schemas.tier import IMAGE_TIERS, VIDEO_TIERS, TierName
from tests.pipeline.tier.tables import ClipMaker

CONFIG = load_tiers()


def reasons(maker: ClipMaker, store: Store, tier: TierName = "tier-3") -> dict[str, str | None]:
    joined = join_tables(store, maker.write(store))
    decisions = decide(Candidates(joined), CONFIG, tier)
    ids = joined["clip_id"].to_pylist()
    return {str(clip_id): decisions.reason_of(row) for row, clip_id in enumerate(ids)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_every_reason_is_the_one_that_was_built_in(store: Store) -> None:
    maker = ClipMaker()
    good = maker.add()
    half = {"box": {"left": 0.25, "top": 0.25, "right": 0.75, "bottom": 0.75}}
    slow_text = {"speed": 0.1}, {"text_mean_area": 0.5}
    missing = maker.add(source="m", without=["quality"])
    maker.fail_stage(missing, "quality")
    expected = {
        good: None,
        maker.add(source="a", duplicate_of=good): "duplicate",
        maker.add(source="b", fps=12.0): "low_fps",
        maker.add(source="c", num_frames=32): "too_short",
        maker.add(source="c2", num_frames=80, clear=50): "too_short",
        maker.add(source="d", size_WH=(900, 540)): "low_resolution",
        maker.add(source="e", crop=half, size_WH=(1280, 720)): "low_resolution",
        maker.add(source="f", size_WH=(4000, 1000)): "aspect",
        maker.add(source="g", motion=slow_text[0], crop=slow_text[1]): "motion.speed.min",
        maker.add(source="h", crop=slow_text[1]): "crop.text_mean_area.max",
        missing: "no_quality",
        maker.add(source="i", without=["crop"]): "no_crop",
        maker.add(source="j", without=["corpus"]): "no_corpus",
        maker.add(source="k", image=True): "not_video",
    }
    assert reasons(maker, store) == expected


def test_a_limit_includes_its_value(store: Store) -> None:
    maker = ClipMaker()
    at = maker.add(motion={"speed": CONFIG["tier-3"].limits["motion"]["speed"].min})
    assert reasons(maker, store)[at] is None


def test_tier_5_needs_a_person(store: Store) -> None:
    maker = ClipMaker()
    yes, no, unseen = (
        maker.add(source="a", approved=True),
        maker.add(source="b", approved=False),
        maker.add(source="c"),
    )
    expected = {yes: None, no: "not_approved", unseen: "not_approved"}
    assert reasons(maker, store, "tier-5") == expected


def test_without_approvals_tier_5_is_empty(store: Store) -> None:
    maker = ClipMaker()
    clip = maker.add()
    assert reasons(maker, store, "tier-5") == {clip: "not_approved"}
    assert reasons(maker, store, "tier-4") == {clip: None}


scores = st.fixed_dictionaries(
    {
        "motion": st.fixed_dictionaries({"speed": st.floats(0, 3)}),
        "clarity": st.fixed_dictionaries({"effective_height": st.floats(0, 700)}),
        "quality": st.fixed_dictionaries({"niqe": st.floats(2, 15)}),
        "aesthetic": st.fixed_dictionaries({"aesthetic_proxy": st.floats(0, 1)}),
        "size_WH": st.tuples(st.integers(200, 2000), st.integers(200, 2000)),
        "num_frames": st.integers(20, 200),
        "fps": st.floats(10, 120),
        "approved": st.booleans(),
        "image": st.booleans(),
    }
)


@settings(max_examples=25, deadline=None)
@given(clips=st.lists(scores, min_size=1, max_size=12))
def test_the_tiers_nest(
    clips: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    maker = ClipMaker()
    for number, clip in enumerate(clips):
        maker.add(source=str(number), **clip)  # type: ignore[arg-type]
    store = Store(str(tmp_path_factory.mktemp("nest")))
    candidates = Candidates(join_tables(store, maker.write(store)))
    for tiers in (VIDEO_TIERS, IMAGE_TIERS):
        passed = [decide(candidates, CONFIG, tier).passed for tier in tiers]
        for low, high in itertools.pairwise(passed):
            assert not (high & ~low).any()


@given(width=st.integers(32, 4000), height=st.integers(32, 4000), area=st.integers(2**12, 2**20))
def test_the_bucket_crop_lies_inside_and_has_the_buckets_aspect(
    width: int, height: int, area: int
) -> None:
    share = [np.array([value]) for value in (0.1, 0.05, 0.9, 1.0)]
    left, top, right, bottom = share
    clean = clean_pixels((left, top, right, bottom), np.array([width]), np.array([height]))
    shapes = fit(clean, area)
    crop = shapes.crop
    assert clean.left[0] <= crop.left[0]
    assert clean.top[0] <= crop.top[0]
    assert crop.left[0] + crop.width[0] <= clean.left[0] + clean.width[0]
    assert crop.top[0] + crop.height[0] <= clean.top[0] + clean.height[0]
    size = (int(shapes.bucket_height[0]), int(shapes.bucket_width[0]))
    assert size in bucket_sizes(area)
    # Rounding may cost up to a pixel on the side that was cut.
    wanted = crop.height[0] * size[1] / size[0]
    assert abs(crop.width[0] - wanted) <= max(1, size[1] / size[0])


@given(
    fps=st.floats(5, 240),
    length=st.integers(1, 400),
    clear=st.integers(0, 50),
    is_vfr=st.booleans(),
)
def test_counts_of_columns_are_those_of_the_window(
    fps: float, length: int, clear: int, is_vfr: bool
) -> None:
    end = clear + length
    clip = ClipRow(
        clip_id="a",
        source_uri="",
        source_sha256="",
        media_kind="video",
        start_frame=0,
        end_frame=end,
        end_s=end / fps,
        clear_frame=clear,
        clear_s=clear / fps,
        fps=fps,
        is_vfr=is_vfr,
    )
    rate, vfr = np.array([fps]), np.array([is_vfr])
    found = available_frames(
        num_frames=np.array([length]),
        duration_s=np.array([clip.end_s - clip.clear_s]),
        fps=rate,
        is_vfr=vfr,
    )
    assert found[0] == max_num_samples(clip)
    assert effective_rates(rate, vfr)[0] == effective_fps(clip)


def test_the_funnel_adds_up_and_counts_rules_alone_first_and_only(store: Store) -> None:
    maker = ClipMaker()
    good = maker.add()
    maker.add(source="slow", motion={"speed": 0.1})
    maker.add(source="both", motion={"speed": 0.1}, crop={"text_mean_area": 0.5})
    maker.add(source="dup", duplicate_of=good)
    maker.add(source="lost", without=["text", "quality"])
    maker.add(source="picture", image=True)
    maker.add_failed_source("file:///pool/broken.mp4")
    maker.add_dropped_shot("film", "too_short", 300, 305)
    tables = maker.write(store)
    for _ in range(2):  # the second time from the joined table
        funnel = tier_funnel(store, tables, CONFIG, "tier-3")
        rules = {rule.reason: (rule.alone, rule.first, rule.only) for rule in funnel.rules}
        assert rules["motion.speed.min"] == (2, 2, 1)
        assert rules["crop.text_mean_area.max"] == (1, 0, 0)
        assert {s.reason: s.num_clips for s in funnel.counts.failed} == {
            "no_clip": 1,
            "no_quality": 1,
        }
        counted = sum(s.num_clips for s in (*funnel.counts.rejected, *funnel.counts.failed))
        assert funnel.num_clips == 8 == counted + funnel.num_passed


def test_a_changed_threshold_changes_the_answer_without_new_tables(store: Store) -> None:
    maker = ClipMaker()
    maker.add(motion={"speed": 1.0})
    tables = maker.write(store)
    before = store.list("tables/motion")
    assert tier_funnel(store, tables, CONFIG, "tier-3").num_passed == 1
    strict = load_tiers(overrides=["tiers.tier-3.limits.motion.speed.min=2"])
    assert tier_funnel(store, tables, strict, "tier-3").num_passed == 0
    assert store.list("tables/motion") == before


def test_sources_that_are_gone_or_excluded_take_their_clips_along(store: Store) -> None:
    maker = ClipMaker()
    kept, *_ = (maker.add(source=name) for name in ("kept", "gone", "excluded"))
    del maker.sources["file:///pool/gone.mp4"]
    maker.sources["file:///pool/excluded.mp4"] |= {
        "ok": False,
        "error_class": "excluded",
        "error": "excluded",
    }
    joined = join_tables(store, maker.write(store))
    assert joined["clip_id"].to_pylist() == [kept]


def test_a_moved_source_keeps_its_clips_once_and_under_its_new_place(store: Store) -> None:
    maker = ClipMaker()
    clip = maker.add(source="film", uri="file:///old.mp4", tags=("x",))
    maker.add(source="film", uri="file:///new.mp4", tags=("x",))
    del maker.sources["file:///old.mp4"]
    maker.corpus.pop()
    tables = maker.write(store)
    joined = load_joined(store, tables)
    assert joined["clip_id"].to_pylist() == [clip]
    assert joined["source_uri"].to_pylist() == ["file:///new.mp4"]
    (record,) = read_records(store, tables, [clip])
    assert record.clip.source_uri == "file:///new.mp4"
    assert record.provenance.tags == ("x",)


def test_rows_that_two_workers_wrote_count_once(store: Store) -> None:
    """A worker that outlived its driver finishes a part whose sources the next run cut anew."""
    maker = ClipMaker()
    maker.add(source="film")
    maker.add_failed_source("file:///pool/broken.mp4")
    tables = maker.write(store)
    before = tier_funnel(store, tables, CONFIG, "tier-1")
    clips = open_table(store, CLIPS, tables[CLIPS])
    clips.write_part("again", clips.read().to_pylist(), seconds=0.0)
    assert tier_funnel(store, tables, CONFIG, "tier-1") == before
    assert sum(step.num_clips for step in before.counts.failed) == 1


def test_an_empty_pool_gives_an_empty_tier(store: Store) -> None:
    assert tier_funnel(store, ClipMaker().write(store), CONFIG, "tier-1").num_clips == 0


def test_explain_names_first_reason_bucket_and_winner(store: Store) -> None:
    maker = ClipMaker()
    good = maker.add(quality={"niqe": 16.5})
    lost = maker.add(source="b", duplicate_of=good)
    tables = maker.write(store)
    told = explain_clip(store, tables, CONFIG, good)
    verdicts = {v.tier: (v.reason, v.bucket and v.bucket.name) for v in told.verdicts}
    assert verdicts["tier-3"] == (None, "f129_544x960")
    assert verdicts["tier-1"] == (None, "f065_192x336")
    assert verdicts["tier-4"] == ("quality.niqe.max", None)
    niqe = next(line for line in told.scores if line.score == "quality.niqe")
    assert (niqe.value, niqe.limits["tier-3"], niqe.failing) == (
        16.5,
        (None, 17.0),
        ("tier-4", "tier-5"),
    )
    assert explain_clip(store, tables, CONFIG, lost).duplicate_of == good
    with pytest.raises(UnknownClipError, match="nope"):
        explain_clip(store, tables, CONFIG, "nope")


def test_a_million_clips_are_judged_in_seconds(store: Store) -> None:
    """About one CPU second on an idle machine (docs/benchmarks.md); a loop over rows takes minutes.

    The best of three counts: on a busy machine memory is shared, too.
    """
    maker = ClipMaker()
    for number in range(1000):
        maker.add(source=str(number), motion={"speed": number / 500}, quality={"niqe": number / 90})
    joined = join_tables(store, maker.write(store))
    million = pa.concat_tables([joined] * 1000).combine_chunks()
    cpu_s = []
    for _ in range(3):
        started = time.process_time()
        decisions = decide(Candidates(million), CONFIG, "tier-4")
        cpu_s.append(time.process_time() - started)
    assert min(cpu_s) < 4
    one = decide(Candidates(joined), CONFIG, "tier-4")
    assert decisions.num_passed == 1000 * one.num_passed > 0


def test_the_default_config_is_a_tiers_config() -> None:
    assert TiersConfig.model_validate(CONFIG.model_dump()) == CONFIG
