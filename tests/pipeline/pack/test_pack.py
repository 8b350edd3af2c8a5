import gc
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import webdataset

from pipeline.engine.work import Part
from pipeline.pack.config import EncodeConfig
from pipeline.pack.encode import encode_mp4, frame_rate
from pipeline.pack.gc import collect_garbage
from pipeline.pack.inspect import inspect_manifest
from pipeline.pack.manifest import UnfinishedPlanError, build_manifest
from pipeline.pack.takedown import shards_holding
from pipeline.pack.verify import read_index, verify_manifest
from pipeline.pack.worker import PackItem, pack_parts, record_pack_failure
from pipeline.tier.config import load_tiers
from schemas.shard import Funnel, ShardSample
from schemas.status import Failure
from tests.media_files import moving_frames, numbered_frames, read_number, write_video
from tests.pipeline.pack.conftest import SMALL, Output, add, pool
from tests.pipeline.tier.tables import ClipMaker

MakeOutput = Callable[..., Output]

# webdataset leaves closing its files to the garbage collector.
WEBDATASET_LEAVES_FILES_OPEN = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)


def webdataset_samples(urls: list[str]) -> list[dict[str, Any]]:
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    gc.collect()  # here, where the warning is expected
    return samples


def decoded(data: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(data), "r") as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@WEBDATASET_LEAVES_FILES_OPEN
def test_webdataset_reads_the_shards_as_they_are(make_output: MakeOutput) -> None:
    output = make_output()
    manifest = output.run()
    urls = [str(output.path(f"shards/tier-1/{entry.path}")) for entry in manifest.shards]
    samples = webdataset_samples(urls)
    assert len(samples) == manifest.totals.num_samples == 4
    for sample in samples:
        meta = ShardSample.model_validate_json(sample["json"])
        frames = decoded(sample["mp4"])
        assert sample["__key__"] == meta.clip_id
        assert len(frames) == meta.num_frames
        assert frames[0].shape == (meta.height, meta.width, 3)


def test_the_buckets_are_the_longest_and_nearest_that_fit(make_output: MakeOutput) -> None:
    manifest = make_output().run()
    assert [bucket.name for bucket in manifest.buckets] == ["f005_32x32", "f009_32x48"]
    sizes = [(entry.bucket, entry.num_samples) for entry in manifest.shards]
    assert sizes == [("f005_32x32", 1), ("f009_32x48", 2), ("f009_32x48", 1)]
    assert {step.reason: step.num_clips for step in manifest.funnel.rejected} == {
        "not_video": 1,
        "too_short": 1,
    }


def test_the_packed_frames_are_the_frames_of_the_window(
    tmp_path: Path, make_output: MakeOutput
) -> None:
    """Every second frame from the clear one on, cut to the middle, at half the rate."""
    source = write_video(tmp_path / "count.mp4", numbered_frames(60, 48, 64), fps=50)
    maker = ClipMaker()
    add(maker, source, start=10, num_frames=40, clear=13, fps=50.0, size_WH=(64, 48))
    output = make_output(maker=maker)
    output.tiers = load_tiers(overrides=["tier-1.size=[32, 64]", "tier-1.frames=[5, 9]"])
    sides = {"left": 0.0, "right": 1.0, "top": 0.125, "bottom": 0.875}
    maker.scores["crop"][0]["box"] = sides
    output.tables = maker.write(output.store)
    manifest = output.run()
    (entry,) = manifest.shards
    folder = output.path("shards/tier-1")
    (row,) = read_index((folder / entry.index_path).read_bytes())
    data = (folder / entry.path).read_bytes()
    sample = ShardSample.model_validate_json(data[row.json_offset :][: row.json_size])
    assert (sample.crop.top, sample.crop.bottom, row.height, row.width) == (8 / 48, 40 / 48, 32, 64)
    assert sample.fps == 25.0
    assert sample.start_s == pytest.approx(13 / 50)
    assert sample.end_s == pytest.approx(13 / 50 + 9 / 25)
    frames = decoded(data[row.media_offset :][: row.media_size])
    assert [read_number(frame) for frame in frames] == list(range(13, 31, 2))


@pytest.mark.parametrize("fps", [24.0, 24000 / 1001, 29.97, 30.0, 12.5])
def test_the_written_clip_has_exactly_its_frames_at_exactly_its_rate(fps: float) -> None:
    rate = frame_rate(fps)
    images = numbered_frames(9, 32, 64)
    data = encode_mp4(images, (32, 64), rate, 9, EncodeConfig())
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        assert stream.average_rate == rate
        context = stream.codec_context
        assert (context.pix_fmt, context.colorspace, context.color_range) == ("yuv420p", 1, 1)
        assert (context.color_primaries, context.color_trc) == (1, 1)
        frames = list(container.decode(stream))
        assert [float(f.time) for f in frames] == pytest.approx([i / rate for i in range(9)])
        assert [
            read_number(np.asarray(f.to_ndarray(format="gray"), np.uint8)) for f in frames
        ] == list(range(9))
        assert "encoder" not in container.metadata
        assert "creation_time" not in container.metadata


def test_a_picture_is_scaled_by_the_mean_of_what_a_pixel_covers() -> None:
    """Stripes of one source pixel become their mean gray, wherever a pixel begins."""
    stripes = np.zeros((5, 64, 128, 3), np.uint8)
    stripes[:, :, ::2] = 200
    stripes[:, 32:] //= 2
    data = encode_mp4(stripes, (32, 64), frame_rate(24), 5, EncodeConfig(crf=1))
    for image in decoded(data):
        assert image.shape == (32, 64, 3)
        assert np.abs(image[:15].astype(int) - 100).max() <= 3
        assert np.abs(image[17:].astype(int) - 50).max() <= 3


def test_colors_survive_the_round_trip() -> None:
    images = np.empty((5, 32, 32, 3), np.uint8)
    images[:] = (200, 60, 30)
    data = encode_mp4(images, (32, 32), frame_rate(24), 5, EncodeConfig())
    with av.open(io.BytesIO(data), "r") as container:
        frame = next(container.decode(video=0))
        image = frame.to_ndarray(format="rgb24", src_colorspace="ITU709")
    assert np.abs(image.astype(int) - images[0].astype(int)).max() <= 4


def test_packing_again_elsewhere_gives_the_same_bytes(make_output: MakeOutput) -> None:
    first, second = make_output("a"), make_output("b")
    second.num_at_once = 3
    first.run()
    second.run()
    assert first.files() == second.files()


def test_a_rerun_touches_no_finished_shard(make_output: MakeOutput) -> None:
    output = make_output()
    manifest = output.run()
    paths = [output.path(f"shards/tier-1/{entry.path}") for entry in manifest.shards]
    before = [path.stat().st_ino for path in paths]
    output.run()
    assert [path.stat().st_ino for path in paths] == before


def test_a_shard_that_is_gone_or_cut_short_is_made_again(make_output: MakeOutput) -> None:
    output = make_output()
    manifest = output.run()
    files = output.files()
    output.path(f"shards/tier-1/{manifest.shards[0].path}").unlink()
    path = output.path(f"shards/tier-1/{manifest.shards[1].path}")
    path.write_bytes(path.read_bytes()[:1000])
    output.run()
    assert output.files() == files


def test_a_clip_that_cannot_be_read_is_left_out_with_its_reason(
    tmp_path: Path, make_output: MakeOutput
) -> None:
    def run(name: str) -> Output:
        maker = pool(tmp_path)
        lost = write_video(tmp_path / "lost.mp4", moving_frames(12, 48, 48, seed=9))
        add(maker, lost, num_frames=12, size_WH=(48, 48))
        lost.unlink()
        output = make_output(name, maker)
        manifest = output.run()
        assert manifest.totals.num_samples == 4
        assert {s.reason: s.num_clips for s in manifest.funnel.failed} == {"no_pack": 1}
        assert verify_manifest(str(output.path("shards/tier-1/manifest.json"))).ok
        return output

    assert run("a").files() == run("b").files()


def test_a_clip_that_kills_its_worker_is_given_up_and_the_rest_is_packed(
    make_output: MakeOutput,
) -> None:
    output = make_output()
    plan = output.plan()
    shard = plan.shards[-1]
    (killer,) = shard.clip_ids if len(shard.clip_ids) == 1 else shard.clip_ids[:1]
    piece = Part("piece", (PackItem(shard, killer),))
    record_pack_failure(
        output.store, plan.plan, piece, Failure(error_class="worker_died", error="twice")
    )
    manifest = output.run()
    assert manifest.totals.num_samples == 3
    assert {s.reason: s.num_clips for s in manifest.funnel.failed} == {"no_pack": 1}


def test_a_piece_of_a_shard_is_tried_and_writes_nothing(make_output: MakeOutput) -> None:
    output = make_output()
    plan = output.plan()
    part = next(part for part in pack_parts(output.store, plan) if len(part.items) > 1)
    report = output.worker(plan).process(Part("piece", part.items[:1]))
    assert (report.num_ok, report.num_failed) == (1, 0)
    assert not output.path("shards").exists()


def test_an_empty_tier_gets_a_manifest_without_shards(make_output: MakeOutput) -> None:
    output = make_output()
    output.tiers = load_tiers(overrides=[*SMALL, "tier-5.limits.motion.speed.min=99"])
    manifest = output.run("tier-5")
    assert (manifest.shards, manifest.totals.num_samples) == ((), 0)
    assert verify_manifest(str(output.path("shards/tier-5/manifest.json"))).ok


@WEBDATASET_LEAVES_FILES_OPEN
def test_pictures_are_packed_as_jpeg(make_output: MakeOutput) -> None:
    output = make_output()
    manifest = output.run("image-1")
    (entry,) = manifest.shards
    assert entry.bucket == "f001_32x32"
    (sample,) = webdataset_samples([str(output.path(f"shards/image-1/{entry.path}"))])
    assert sample["jpg"][:2] == b"\xff\xd8"
    assert json.loads(sample["json"])["fps"] is None


def test_a_manifest_waits_for_every_shard(make_output: MakeOutput) -> None:
    output = make_output()
    plan = output.plan()
    funnel = Funnel(num_clips=0, num_packed=0, rejected=(), failed=())
    with pytest.raises(UnfinishedPlanError, match=plan.shards[0].name):
        build_manifest(
            output.store,
            plan,
            captioner="",
            funnel=funnel,
            config_fingerprint="",
            weights={},
            tables={},
        )


def test_a_changed_tier_never_alters_a_shard_of_an_older_manifest(make_output: MakeOutput) -> None:
    output = make_output()
    older = output.run()
    before = output.files()
    output.tiers = load_tiers(overrides=[*SMALL, "tier-1.frames=[5]"])
    newer = output.run()
    after = output.files()
    assert older.plan != newer.plan
    assert {p: d for p, d in before.items() if not p.endswith("manifest.json")}.items() <= (
        after.items()
    )
    report = verify_manifest(str(output.path("shards/tier-1/manifest.json")))
    assert report.ok
    assert len(report.other_plans) == 2 * len(older.shards)

    kept = collect_garbage(output.store, dry_run=False, also_named_by=[older])
    assert kept.paths == ()
    planned = collect_garbage(output.store, dry_run=True)
    assert len(planned.paths) == 2 * len(older.shards)
    assert output.files() == after
    collect_garbage(output.store, dry_run=False)
    assert verify_manifest(str(output.path("shards/tier-1/manifest.json"))).ok
    assert not any(
        entry.path.encode() in "".join(output.files()).encode() for entry in older.shards
    )


def test_a_takedown_names_the_shards_that_hold_the_source(
    media_folder: Path, make_output: MakeOutput
) -> None:
    output = make_output()
    output.run()
    held = shards_holding(output.store, {(media_folder / "wide.mp4").as_uri()})
    assert sum(len(holding.clip_ids) for holding in held) == 3
    assert all("f009_32x48" in holding.shard and holding.is_named for holding in held)


def test_inspect_counts_what_the_shards_hold(make_output: MakeOutput) -> None:
    output = make_output()
    manifest = output.run()
    seen = inspect_manifest(str(output.path("shards/tier-1/manifest.json")), num_rows=2)
    assert sum(bucket.num_samples for bucket in seen.buckets) == manifest.totals.num_samples
    assert sum(bucket.num_bytes for bucket in seen.buckets) == manifest.totals.num_bytes
    assert len(seen.first) == 2
    speed = next(h for h in seen.histograms if h.score == "motion.speed")
    assert (speed.num_values, sum(speed.counts), speed.median) == (4, 4, 5.0)
