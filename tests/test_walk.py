"""The whole walk on a small pool: what adds up, what is the same, what is not done twice."""

from pathlib import Path

import pytest

from pipeline.pack.verify import verify_manifest
from tests.media_files import moving_frames, write_video
from tests.walks import curate, manifest, read_rows, shard_bytes, write_config, write_pool


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory, pool: Path, config: Path) -> Path:
    output = tmp_path_factory.mktemp("output") / "run"
    curate(pool, output, config, tiers=("tier-1", "image-1"))
    return output


def test_every_entry_has_a_row_and_a_copy_names_the_first(curated: Path, pool: Path) -> None:
    rows = {Path(row["source_uri"]).name: row for row in read_rows(curated, "sources")}
    assert set(rows) == {"one%20shot.mp4", "photo.png", "two%20shots.mp4", "z%20copy.mp4"}
    assert all(row["ok"] for row in rows.values())
    assert rows["z%20copy.mp4"]["duplicate_of"] == (pool / "one shot.mp4").as_uri()


def test_the_cut_is_found_where_it_was_made(curated: Path) -> None:
    (shot,) = read_rows(curated, "shots")
    assert (shot["frame"], shot["kind"]) == (30, "cut")


def test_clips_are_packed_rejected_or_failed_and_nothing_else(curated: Path) -> None:
    funnel = manifest(curated)["funnel"]
    accounted = sum(step["num_clips"] for step in funnel["rejected"] + funnel["failed"])
    assert funnel["num_clips"] == funnel["num_packed"] + accounted
    assert funnel["num_clips"] == len(read_rows(curated, "clips")) == 4
    assert funnel["num_packed"] == manifest(curated)["totals"]["num_samples"] == 3


def test_manifests_verify(curated: Path) -> None:
    for tier in ("tier-1", "image-1"):
        assert verify_manifest(str(curated / "shards" / tier / "manifest.json")).ok


def test_a_second_output_holds_the_same_bytes(
    curated: Path, pool: Path, config: Path, tmp_path: Path
) -> None:
    curate(pool, tmp_path / "again", config, tiers=("image-1", "tier-1"))
    assert shard_bytes(tmp_path / "again") == shard_bytes(curated)


def test_a_pool_may_grow_shrink_and_forget(pool: Path, config: Path, tmp_path: Path) -> None:
    mine = tmp_path / "pool"
    mine.mkdir()
    for path in pool.glob("*.mp4"):
        (mine / path.name).write_bytes(path.read_bytes())
    output = tmp_path / "out"
    curate(mine, output, config)
    first = manifest(output)

    write_video(mine / "new.mp4", moving_frames(30, 96, 128, seed=21, step_px=1))
    record = curate(mine, output, config)
    worked = {timing.name: timing.num_ok + timing.num_failed for timing in record.passes}
    assert (worked["ingest"], worked["split"], worked["embed"], worked["score"]) == (1, 1, 1, 1)
    assert manifest(output)["totals"]["num_samples"] == first["totals"]["num_samples"] + 1
    for shard in first["shards"]:
        assert (output / "shards/tier-1" / shard["path"]).exists()

    (mine / "new.mp4").unlink()
    record = curate(mine, output, config)
    assert all(t.num_ok == 0 for t in record.passes if t.name in ("ingest", "split", "score"))
    assert manifest(output)["shards"] == first["shards"]

    takedown = tmp_path / "takedown.txt"
    takedown.write_text((mine / "two shots.mp4").as_uri() + "\n")
    curate(mine, output, config, exclude=takedown)
    assert manifest(output)["totals"]["num_samples"] == 1


def test_a_changed_tier_touches_no_medium(
    curated: Path, pool: Path, config: Path, tmp_path: Path
) -> None:
    record = curate(
        pool, curated, config, overrides=("tiers.tier-1.limits.exposure.mean_luma.min=255",)
    )
    assert {t.name: t.num_ok for t in record.passes if t.num_ok} in ({}, {"corpus": 4})
    assert manifest(curated)["shards"] == []
    curate(pool, curated, config)
    assert manifest(curated)["totals"]["num_samples"] == 3
