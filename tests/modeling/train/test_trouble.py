"""What goes wrong costs a line, not a run."""

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from modeling.data.errors import DataError
from modeling.data.plan import PlanState
from modeling.train import checkpoint
from modeling.train.checkpoint import Checkpointer, CheckpointState, Counters
from modeling.train.cli import app
from modeling.train.config import CheckpointConfig
from modeling.train.errors import CheckpointError, ConfigError, TrainError
from modeling.train.parallel import SingleProcess
from tests.modeling.data.shards import write_shards
from tests.modeling.train.runs import (
    DIT,
    VAE,
    checkpoint_bits,
    checkpoint_steps,
    config_of,
    make_trainer,
    metrics,
)


def _state(step: int) -> CheckpointState:
    return CheckpointState(
        step=step,
        data=PlanState(),
        counters=Counters(),
        identity={},
        world_size=1,
        torch_version="",
    )


def _checkpointer(out: Path, **config: Any) -> Checkpointer:
    return Checkpointer(out, CheckpointConfig(**config), SingleProcess(torch.device("cpu")))


def test_steps_that_are_not_finite_are_skipped_then_end_the_run(
    manifest: str, tmp_path: Path
) -> None:
    config = config_of(DIT, manifest, steps=9, max_bad_steps=3, checkpoint={"every": 1})
    trainer = make_trainer(config, tmp_path)
    for number, parameter in enumerate(trainer.task.networks["model"].parameters()):
        if number == 0:
            parameter.data.fill_(float("nan"))
    with pytest.raises(TrainError, match="3 losses in a row were not finite"):
        trainer.run()
    rows = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(len(row["keys"]) == 2 for row in rows)
    resumed = make_trainer(config, tmp_path)
    assert resumed.counters.bad_in_a_row == resumed.step == 2


def test_a_full_disk_leaves_the_older_checkpoint_whole(manifest: str, tmp_path: Path) -> None:
    make_trainer(config_of(VAE, manifest, steps=1), tmp_path).run()
    before = checkpoint_bits(tmp_path, 1)
    trainer = make_trainer(config_of(VAE, manifest, steps=2), tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # as if the disk ended there
    try:
        with pytest.raises(CheckpointError, match=r"step 2 was not written .*00000001 is whole"):
            trainer.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint_steps(tmp_path) == [1]
    assert list((tmp_path / "checkpoints").iterdir()) == [tmp_path / "checkpoints/step-00000001"]
    assert checkpoint_bits(tmp_path, 1) == before


def test_a_checkpoint_in_the_background_that_fails_is_said_at_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpointer = _checkpointer(tmp_path)
    tensors = {"x": torch.ones(4)}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 3))
    checkpointer.save(_state(1), tensors, wait=False)
    with pytest.raises(CheckpointError, match=r"step 1 .* 0\.00 GB are free"):
        checkpointer.save(_state(2), tensors, wait=False)
    monkeypatch.undo()
    checkpointer.save(_state(3), tensors, wait=True)
    assert checkpoint_steps(tmp_path) == [3]


def test_what_is_saved_in_the_background_is_what_was_there_at_the_call(tmp_path: Path) -> None:
    tensors = {"x": torch.ones(4)}
    checkpointer = _checkpointer(tmp_path)
    checkpointer.save(_state(1), tensors, wait=False)
    tensors["x"].zero_()
    checkpointer.join()
    found = {"x": torch.zeros(4)}
    checkpoint.load_tensors(checkpointer.folder / "step-00000001", found, alone=True)
    assert found["x"].tolist() == [1, 1, 1, 1]


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    checkpointer = _checkpointer(tmp_path)
    for step in (1, 2):
        checkpointer.save(_state(step), {"x": torch.ones(4)}, wait=True)
    damaged = checkpointer.folder / "step-00000002"
    next((damaged / "tensors").glob("*.distcp")).write_bytes(b"short")
    found = checkpointer.newest()
    assert found is not None
    assert checkpoint.step_of(found) == 1
    with pytest.raises(CheckpointError, match=r"is damaged: .* 5 bytes"):
        checkpoint.read_state(damaged)


def test_old_checkpoints_go_but_for_those_to_keep(tmp_path: Path) -> None:
    checkpointer = _checkpointer(tmp_path, keep=2, keep_every=4)
    for step in range(1, 8):
        checkpointer.save(_state(step), {"x": torch.ones(1)}, wait=True)
    assert checkpoint_steps(tmp_path) == [4, 6, 7]


def test_a_shard_that_changes_while_training_stops_the_run_with_its_name(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path / "shards", {"f005_32x32": 6}, per_shard=3)
    config = config_of(VAE, manifest, steps=50, data={"plan": {"global_batch": 2}})
    trainer = make_trainer(config, tmp_path / "run")
    for shard in (tmp_path / "shards").rglob("*.tar"):
        shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(DataError, match=r"\.tar: ends (at|before) byte"):
        trainer.run()


def test_init_from_takes_weights_and_refuses_others(manifest: str, tmp_path: Path) -> None:
    make_trainer(config_of(DIT, manifest, steps=2), tmp_path / "first").run()
    from modeling.train.export import read_weights

    file, weights = read_weights(tmp_path / "first")
    assert file.name == "ema.safetensors"
    other_data = config_of(DIT, manifest, steps=1, data={"view": {"max_frames": 1}})
    second = make_trainer(other_data, tmp_path / "second", init=weights)
    assert second.step == 0
    own = second.task.networks["model"].state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in own)
    wider = config_of(
        DIT,
        manifest,
        steps=1,
        dit={"network": {"attention_head_dim": 16, "rope_axes_dim": [4, 6, 6]}},
    )
    with pytest.raises(ConfigError, match=r"--init-from: .* is \(.*\) there, \(.*\) in this"):
        make_trainer(wider, tmp_path / "third", init=weights)
    with pytest.raises(ConfigError, match="neither a run's folder"):
        read_weights(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shards", "gone.json"], "gone.json: there is no such file"),
        ([], "no shards: give --shards MANIFEST"),
        (["--config", "nosuch"], "there is no config nosuch; recipes that come along: distill"),
        (["--shards", "MANIFEST", "--vae", "nowhere"], "dit.vae = 'nowhere': no config.json"),
        (["--shards", "MANIFEST", "--set", "optim.lr=1"], "optim.lr: there is no such key"),
        (["--shards", "MANIFEST", "--weight", "1", "--weight", "2"], "2 weights for 1 manifests"),
        (["--shards", "MANIFEST", "--init-from", "nothing"], "neither a run's folder"),
        (
            ["--shards", "MANIFEST", "--config", "distill_debug"],
            "dit.distill.teacher: runs/sft_debug/final is no checkpoint",
        ),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    options: list[str], said: str, manifest: str, tmp_path: Path
) -> None:
    given = [manifest if option == "MANIFEST" else option for option in options]
    given += ["--out", str(tmp_path), "--set", "compute.device=cpu"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 1
    errors = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]


def test_a_finished_run_has_nothing_left_to_do(manifest: str, tmp_path: Path) -> None:
    config = config_of(VAE, manifest, steps=2)
    make_trainer(config, tmp_path).run()
    lines = metrics(tmp_path)
    (tmp_path / "final" / "model.safetensors").unlink()
    make_trainer(config, tmp_path).run()
    assert metrics(tmp_path) == lines
    assert (tmp_path / "final" / "model.safetensors").is_file()  # made anew
