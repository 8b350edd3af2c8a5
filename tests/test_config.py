from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.config_file import ConfigError


def test_the_limits_of_media_hold_for_every_step_that_opens_media() -> None:
    config = load_config(None, ["media.max_streams=3"])
    limits = {config.media, config.ingest.limits, config.split.limits}
    assert {one.max_streams for one in limits} == {3}


def test_a_second_home_for_the_limits_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set in \[media\], not in \[split\]"):
        load_config(None, ["media.max_streams=3", "split.limits.max_streams=4"])


def test_a_tier_in_a_file_replaces_the_shipped_one_whole(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[tiers.tier-1]\nsize = [64, 64]\nframes = [9]\n")
    config = load_config(tmp_path / "c.toml", [])
    assert config.tiers["tier-1"].rules == ()
    assert config.tiers.own("tier-2") == load_config(None, []).tiers.own("tier-2")


def test_an_override_that_tightens_a_tier_takes_the_tiers_above_along() -> None:
    config = load_config(None, ["tiers.tier-2.limits.motion.speed.min=50"])
    assert config.tiers["tier-4"].limits["motion"]["speed"].min == 50


def test_settings_of_the_engine_change_no_fingerprint() -> None:
    plain = load_config(None, []).result_fingerprint
    assert load_config(None, ["engine.num_workers=3"]).result_fingerprint == plain
    assert load_config(None, ["pack.encode.crf=20"]).result_fingerprint != plain


def test_thresholds_of_copies_are_asked_for_with_another_network() -> None:
    """The default network's would take most clips of a pool for copies."""
    other = ["embed.model=path:clip.onnx"]
    with pytest.raises(ConfigError, match=r"set corpus\.duplicates\.min_similarity and"):
        load_config(None, other)
    chosen = [
        f"corpus.duplicates.{n}=0.95" for n in ("min_similarity", "min_similarity_same_source")
    ]
    assert load_config(None, [*other, *chosen]).corpus.duplicates.min_similarity == 0.95
    load_config(None, [*other, "corpus.duplicates.enabled=false"])
