import pytest

from pipeline.config_file import ConfigError
from pipeline.tier.config import load_tiers
from pipeline.tier.geometry import bucket_sizes
from schemas.tier import VIDEO_TIERS


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tier-3.limits.motion.speed.min=0.1", "tier-3 loosens motion.speed.min: 0.1 against 0.3"),
        ("tier-2.limits.quality.niqe.max=99", "tier-2 loosens quality.niqe.max: 99"),
        ("tier-4.size=[64, 64]", "tier-4 is smaller than tier-3"),
        ("tier-2.frames=[5, 33]", "tier-2 takes shorter clips than tier-1"),
        ("tier-1.frames=[32]", "frame counts must be 4n\\+1, got \\[32\\]"),
        ("tier-1.limits.motion.sped.min=1", "motion has no number 'sped'"),
        ("tier-1.limits.motoin.speed.min=1", "no score stage 'motoin'"),
        ("tier-1.limits.motion.speed.low=1", "low = 1: no such setting"),
        ("image-1.limits.motion.speed.min=1", "image-1: an image has no motion"),
        ("tiers.tier-1.limits.exposure.mean_luma.min=250", "min 250.* is above max 239"),
    ],
)
def test_a_config_that_is_wrong_or_loosens_upward_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_tiers(overrides=[override])


def test_a_tier_takes_over_what_it_does_not_tighten() -> None:
    config = load_tiers(overrides=["tier-2.limits.motion.speed.min=0.7", "tier-3.limits.motion={}"])
    assert config["tier-3"].limits["motion"]["speed"].min == 0.7
    assert config["tier-3"].limits["motion"]["num_pairs"].fixed


def test_a_limit_tightened_on_the_command_line_takes_the_tiers_above_along() -> None:
    config = load_tiers(overrides=["tiers.tier-2.limits.motion.speed.min=5"])
    speeds = [config[tier].limits["motion"]["speed"].min for tier in VIDEO_TIERS]
    assert speeds == [0.2, 5, 5, 5, 5]


def test_the_buckets_have_the_sizes_of_the_design() -> None:
    config = load_tiers()
    assert (256, 256) in bucket_sizes(config["tier-1"].area_px)
    assert (352, 640) in bucket_sizes(config["tier-2"].area_px)
    assert (544, 960) in bucket_sizes(config["tier-3"].area_px)
    assert (720, 1280) in bucket_sizes(config["tier-4"].area_px)
    assert (1280, 720) in bucket_sizes(config["tier-5"].area_px)
    assert (512, 512) in bucket_sizes(config["image-2"].area_px)


@pytest.mark.parametrize("tier", ["tier-1", "tier-2", "tier-3", "tier-4", "image-2"])
def test_bucket_areas_are_within_a_tenth_of_the_tier(tier: str) -> None:
    area = load_tiers()[tier].area_px  # type: ignore[index]
    for height, width in bucket_sizes(area):
        assert height * width == pytest.approx(area, rel=0.1)
        assert height % 16 == width % 16 == 0
