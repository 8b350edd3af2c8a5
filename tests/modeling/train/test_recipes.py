"""Every recipe that comes along loads, and plans a run on real shards without starting it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from modeling.train.cli import app
from modeling.train.config_file import CONFIG_FOLDER, build_config, find_config, read_tables
from modeling.train.presets import CPU_PRESETS, GPU_PRESETS
from tests.modeling.data.shards import write_shards

RECIPES = sorted(path.stem for path in CONFIG_FOLDER.glob("[!_]*.toml"))
_TWINS = {"dit_one_gpu": "dit_debug", "vae_one_gpu": "vae_debug"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Manifests of clips and of images."""
    folder: Path = tmp_path_factory.mktemp("both")
    return [
        write_shards(folder / "video", {"f009_64x64": 6}),
        write_shards(folder / "image", {"f001_64x64": 8}, first_number=50),
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_plans_a_run(name: str, both: list[str]) -> None:
    options = ["--config", name, "--dry-run", "--set", "compute.device=cpu"]
    for manifest in both:
        options += ["--shards", manifest]
    if build_config([read_tables(find_config(name))]).model == "dit":
        options += ["--vae", "untrained", "--set", 'dit.text_encoder.states="byte"']
    if name in ("sft", "sft_lora"):
        options += ["--set", "data.tag_weights={even = 1.0}"]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    assert "steps/epoch" in done.output
    assert "memory" in done.output


def test_each_recipe_has_a_twin_for_a_cpu() -> None:
    for name in RECIPES:
        if name.endswith("_debug"):
            continue
        twin = build_config([read_tables(find_config(_TWINS.get(name, f"{name}_debug")))])
        recipe = build_config([read_tables(find_config(name))])
        assert twin.model == recipe.model
        assert twin.compute.device == "cpu"
        assert twin.steps <= 20


def test_presets_are_recipes() -> None:
    assert {*CPU_PRESETS.values(), *GPU_PRESETS.values()} <= set(RECIPES)
