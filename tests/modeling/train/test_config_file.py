import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling.train.config_file import build_config, merge, parse_setting, read_tables
from modeling.train.errors import ConfigError
from modeling.train.optim_config import OptimConfig

_SHARDS = {"data": {"shards": ["manifest.json"]}}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("optim.learning_rate=1e-3", {"optim": {"learning_rate": 1e-3}}),
        ("dit.size=tiny", {"dit": {"size": "tiny"}}),
        ("data.plan.image_share=none", {"data": {"plan": {"image_share": None}}}),
        ("data.view={max_frames = 9}", {"data": {"view": {"max_frames": 9}}}),
        ("compute.compile=true", {"compute": {"compile": True}}),
    ],
)
def test_a_setting_is_a_path_and_a_toml_value(text: str, wanted: dict[str, Any]) -> None:
    assert parse_setting(text) == wanted


@pytest.mark.parametrize("text", ["steps", "=3", "a..b=3"])
def test_a_setting_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_setting(text)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"optim": {"learning_rat": 1}}, "optim.learning_rat: there is no such key"),
        ({"optim": {"learning_rate": -1}}, "optim.learning_rate: .* greater than 0, got -1"),
        ({"vae": {"size": "tiny"}}, "section vae has no effect"),
        ({"data": {"plan": {"seed": 3}}}, "data.plan.seed has no effect: set seed"),
        ({"optim": {"schedule_steps": 9}}, "schedule_steps has no effect"),
        ({"optim": {"schedule": "cosine"}}, "needs schedule_steps"),
        ({"dit": {"size": "huge"}}, "size must be one of tiny, .* got 'huge'"),
        ({"model": "vae", "data": {"view": {}}}, "data.view has no effect on a VAE"),
        ({"compute": {"micro_batch": 1, "micro_tokens": 9}}, "set one"),
        ({"model": "vae", "compute": {"attention": "math"}}, "compute.attention has no effect"),
        ({"model": "vae", "compute": {"attention": "flash"}}, "compute.attention has no effect on"),
        ({"lora": {"targets": ["q_proj"]}}, "lora.targets.0: .*'img_attn_qkv'"),
        ({"lora": {"targets": ["linear1", "linear1"]}}, "lora: targets names a layer twice"),
        ({"lora": {}, "model": "vae"}, "the section lora is for a DiT"),
        ({"lora": {}, "dit": {"distill": {"teacher": "x"}}}, "additions to one: set one"),
        ({"lora": {}, "optim": {"optimizer": "muon"}}, "lora takes 'adamw'"),
        ({"lora": {}, "parallel": {"data": "fsdp"}}, "parallel.data = 'fsdp' .* take 'ddp'"),
        (
            {"lora": {"dropout": 0.1}, "compute": {"compile": True}},
            "lora.dropout = 0.1 does not go with compute.compile",
        ),
        (
            {"lora": {"dropout": 0.1}, "parallel": {"context_ranks": 2}},
            "lora.dropout = 0.1 does not go with parallel.context_ranks = 2",
        ),
        (
            {"model": "vae", "vae": {"loss": {"adversarial_start": 5}}},
            "vae.loss.adversarial_start has no effect",
        ),
    ],
)
def test_a_wrong_key_is_named_in_one_line(layer: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        build_config([_SHARDS, layer])
    assert "\n" not in str(caught.value)


def test_a_file_goes_over_those_that_it_extends(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("steps = 5\n[optim]\nlearning_rate = 1.0\neps = 0.5\n")
    own = 'extends = ["base.toml"]\n[optim]\nlearning_rate = 2.0\n'
    (tmp_path / "own.toml").write_text(own)
    assert read_tables(tmp_path / "own.toml") == {
        "steps": 5,
        "optim": {"learning_rate": 2.0, "eps": 0.5},
    }
    (tmp_path / "base.toml").write_text('extends = ["own.toml"]')
    with pytest.raises(ConfigError, match="extends itself"):
        read_tables(tmp_path / "own.toml")


_TABLES = st.dictionaries(st.sampled_from("ab"), st.integers() | st.just({"c": 1}), max_size=2)


@given(_TABLES, _TABLES)
def test_what_is_merged_last_wins(base: dict[str, Any], over: dict[str, Any]) -> None:
    merged = merge(base, over)
    assert merge(merged, over) == merged
    assert merged.keys() == base.keys() | over.keys()
    assert all(merged[key] == over[key] for key in over if not isinstance(over[key], dict))


def test_the_rate_rises_then_falls_to_its_share_and_stays() -> None:
    config = OptimConfig(warmup_steps=10, schedule="cosine", schedule_steps=110, final_share=0.2)
    shares = [config.rate_share(step) for step in range(130)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9] == shares[10] == 1.0
    assert shares[60] == pytest.approx(0.6)
    assert shares[110:] == pytest.approx([0.2] * 20)
    assert all(a >= b for a, b in itertools.pairwise(shares[10:]))
