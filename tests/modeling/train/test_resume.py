"""Stopping changes nothing: k steps, a kill and the rest are, to the bit, the run without it."""

import signal
from pathlib import Path
from typing import Any

import pytest

from modeling.train.errors import CheckpointError, ConfigError
from tests.modeling.train.runs import (
    DIT,
    VAE,
    checkpoint_bits,
    checkpoint_steps,
    config_of,
    make_trainer,
    metrics,
    start,
)

_NOT_TIME = ("step", "loss", "grad_norm", "tokens", "flops", "samples", "bucket", "rate_share")


def _facts(out: Path) -> list[dict[str, Any]]:
    return [{name: row.get(name) for name in _NOT_TIME} for row in metrics(out)]


@pytest.mark.parametrize("kind", [DIT, VAE], ids=["dit", "vae"])
def test_a_killed_and_resumed_run_is_the_undisturbed_one_bitwise(
    kind: dict[str, Any], manifest: str, tmp_path: Path
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    run = start(kind, manifest, killed)
    run.stop(signal.SIGKILL)
    assert run.process.exitcode == -signal.SIGKILL
    steps = checkpoint_steps(killed)
    num_steps = steps[-1] + 2
    trainer = make_trainer(config_of(kind, manifest, steps=num_steps), killed)
    assert trainer.step == steps[-1]
    trainer.run()
    make_trainer(config_of(kind, manifest, steps=num_steps), whole).run()
    assert checkpoint_bits(killed, num_steps) == checkpoint_bits(whole, num_steps)
    assert _facts(killed) == _facts(whole)
    names = checkpoint_bits(whole, num_steps).keys()
    assert {name.split("/")[0] for name in names} >= {"model", "ema", "optimizer", "state"}
    assert any(name.startswith("optimizer/discriminator") for name in names) == (kind is VAE)


def test_sigterm_saves_and_says_how_to_go_on(manifest: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = start(DIT, manifest, out)
    said = run.stop(signal.SIGTERM)
    assert run.process.exitcode == 128 + signal.SIGTERM
    assert "go on with" in said
    assert "Traceback" not in said
    assert checkpoint_steps(out)[-1] == metrics(out)[-1]["step"]
    assert not (out / "final").exists()


def test_three_steps_and_then_six_are_six_at_once(manifest: str, tmp_path: Path) -> None:
    schedule = {"schedule": "cosine", "schedule_steps": 9}
    for out, stops in ((tmp_path / "twice", (3, 6)), (tmp_path / "once", (6,))):
        for steps in stops:
            config = config_of(DIT, manifest, steps=steps, optim=schedule)
            make_trainer(config, out).run()
    assert checkpoint_bits(tmp_path / "twice", 6) == checkpoint_bits(tmp_path / "once", 6)
    assert _facts(tmp_path / "twice") == _facts(tmp_path / "once")


def test_micro_batches_change_nothing_but_rounding(manifest: str, tmp_path: Path) -> None:
    losses = []
    for name, compute in (("whole", {}), ("parts", {"micro_batch": 1})):
        config = config_of(DIT, manifest, steps=3, compute=compute)
        make_trainer(config, tmp_path / name).run()
        losses.append([row["loss"] for row in metrics(tmp_path / name)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_another_config_is_refused_by_the_name_of_the_setting(
    manifest: str, tmp_path: Path
) -> None:
    make_trainer(config_of(DIT, manifest, steps=2), tmp_path).run()
    changed = config_of(DIT, manifest, steps=4, optim={"weight_decay": 0.1})
    with pytest.raises(CheckpointError, match=r"optim\.weight_decay = 0\.0, this run has 0\.1"):
        make_trainer(changed, tmp_path)
    other_data = config_of(DIT, manifest, steps=4, data={"view": {"max_frames": 5}})
    with pytest.raises(CheckpointError, match=r"view\.max_frames = None, this run has 5"):
        make_trainer(other_data, tmp_path)
    with pytest.raises(ConfigError, match="holds a run that got to step 2"):
        make_trainer(config_of(DIT, manifest, steps=4), tmp_path, resume="never")


def test_what_only_says_where_and_how_often_may_change(manifest: str, tmp_path: Path) -> None:
    make_trainer(config_of(DIT, manifest, steps=2), tmp_path).run()
    changed = config_of(
        DIT,
        manifest,
        steps=3,
        log={"every": 2},
        checkpoint={"every": 1, "keep": 1, "asynchronous": False},
        data={"loader": {"num_threads": 2}},
    )
    trainer = make_trainer(changed, tmp_path)
    assert trainer.step == 2
    trainer.run()
    assert checkpoint_steps(tmp_path) == [3]
