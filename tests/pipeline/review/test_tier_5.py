"""From a packed tier 4 and judgements to tier 5, and back, through whole runs."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.pack.contents import manifest_samples
from pipeline.pack.manifest import read_manifest
from pipeline.pack.verify import verify_manifest
from pipeline.review.log import JudgementLog
from pipeline.run_record import RunRecord
from pipeline.storage import Store
from schemas.shard import ShardSample
from schemas.tier import VIDEO_TIERS
from tests.media_files import scenes, write_video
from tests.pipeline.review.makers import hex_id, judgement, withdrawal
from tests.walks import SMALL_CONFIG, curate, shard_bytes

_TIER = "\n[tiers.tier-{}]\nsize = [64, 64]\nframes = [9, 17]\nlimits = {{}}\n"
_MEDIA_PASSES = ("ingest", "split", "embed", "corpus", "score", "caption tier-5")


class Pool:
    """Four shots, curated to tier 4."""

    def __init__(self, folder: Path) -> None:
        self.media = folder / "pool"
        self.media.mkdir()
        write_video(self.media / "film.mp4", scenes([20, 20, 20, 20], 96, 128, seed=3))
        self.config = folder / "config.toml"
        above = "".join(_TIER.format(tier) for tier in range(2, 6))
        self.config.write_text(SMALL_CONFIG + above)
        self.output = folder / "out"
        self.log = JudgementLog(Store(str(self.output)))
        self.run(4)

    def run(self, tier: int, **options: Any) -> RunRecord:
        return curate(
            self.media, self.output, self.config, tiers=(VIDEO_TIERS[tier - 1],), **options
        )

    def samples(self, tier: int) -> dict[str, ShardSample]:
        folder = Store(str(self.output / "shards" / f"tier-{tier}"))
        found = manifest_samples(folder, read_manifest(folder, "manifest.json"))
        return {sample.clip_id: sample for sample in found}

    def judge(self, clip_id: str, verdict: str = "approve", **more: Any) -> Any:
        one = judgement(int(clip_id, 16), more.pop("reviewer", "Ada Tester"), verdict, **more)
        self.log.add(one)
        return one


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return Pool(tmp_path_factory.mktemp("tier5"))


def test_tier_5_is_tier_4_plus_approvals(pool: Pool) -> None:
    tier_4 = pool.samples(4)
    before = shard_bytes(pool.output)
    first, second, third, *_ = sorted(tier_4)

    record = pool.run(5)  # nobody has judged anything
    (result,) = record.tiers
    assert result.funnel.num_packed == 0
    assert {step.reason for step in result.funnel.rejected} >= {"not_approved"}

    fix = {"short_description": "Clouds of noise drift by.", "camera_movement": "pan_left"}
    pool.judge(first, subsets=("calm", "blue"), fix=fix, note="mine")
    pool.judge(second)
    pool.judge(third, "reject", fix={})
    pool.judge(hex_id(99))  # a clip that tier 4 does not hold
    record = pool.run(5)
    samples = pool.samples(5)
    assert sorted(samples) == [first, second]
    assert verify_manifest(str(pool.output / "shards/tier-5/manifest.json")).ok

    # no step before packing worked on anything
    passes = {one.name: one for one in record.passes}
    for name in _MEDIA_PASSES:
        assert passes[name].num_ok + passes[name].num_failed == 0, name

    mended = samples[first]
    assert mended.subsets == ("blue", "calm")
    assert mended.caption.short_description == "Clouds of noise drift by."
    assert mended.caption.captioner == f"{tier_4[first].caption.captioner}+human"
    assert mended.camera_movement == mended.caption.camera_movement == "pan_left"
    same = {"tier": "tier-4"}
    assert samples[second].model_copy(update=same) == tier_4[second]

    # the tiers below are as they were, and who judged stands in no shard and no table
    after = shard_bytes(pool.output)
    assert {name: after[name] for name in before} == before
    for path in sorted(pool.output.rglob("*")):
        if path.is_file() and "judgements" not in path.parts:
            assert b"Ada Tester" not in path.read_bytes(), path

    pool.run(5)
    assert shard_bytes(pool.output) == after
    pool.log.compact()
    pool.run(5)
    assert shard_bytes(pool.output) == after

    one = pool.judge(third)
    pool.run(5)
    assert sorted(pool.samples(5)) == [first, second, third]
    pool.log.add(withdrawal(one))
    pool.run(5)
    assert shard_bytes(pool.output)["tier-5/manifest.json"] == after["tier-5/manifest.json"]
    pool.run(5, overrides=("review.min_approvals=2",))
    assert pool.samples(5) == {}
