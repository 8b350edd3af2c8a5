"""`python -m modeling.launch`: workers of Ray Train train as those of torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modeling import launch
from modeling.train import cli
from modeling.train.errors import ConfigError
from tests.modeling.train.runs import (
    DIT,
    ROOT,
    TIMEOUT_S,
    config_of,
    metrics,
    tables,
)

_PLAN = {"plan": {"global_batch": 2, "batch_multiple": 2}}
_WORKERS = ["--address", "local", "--workers", "2", "--gpus-per-worker", "0"]
_ON_CPU = launch.Cluster("local", 2, 0, 1)


def _launch(
    monkeypatch: pytest.MonkeyPatch, config: Any, out: Path, *options: str
) -> tuple[int, str]:
    monkeypatch.setattr(cli, "make_config", lambda *args, **kwargs: config)
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(launch.app, [*_WORKERS, *options, "--out", str(out)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_workers_of_ray_train_as_those_of_torchrun(
    manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "ray", tmp_path / "torchrun"
    layers = tables(DIT, manifest, steps=2, data=_PLAN)
    (tmp_path / "jobs.json").write_text(json.dumps([[layers, str(theirs)]]))
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", str(Path(__file__).parent / "several_runs.py")),
            str(tmp_path / "jobs.json"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=TIMEOUT_S,
        capture_output=True,
    )
    config = config_of(DIT, manifest, steps=2, data=_PLAN)
    code, said = _launch(monkeypatch, config, ours)
    assert code == 0, said
    assert f"done: step 2, {ours / 'final'}" in said
    facts = [[(row["loss"], row["grad_norm"]) for row in metrics(out)] for out in (ours, theirs)]
    assert facts[0] == facts[1] != []


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (("auto", 0, 1, 1), "--workers and --cpus-per-worker must be 1 or more, got 0 and 1"),
        (("auto", 2, 4, 1), "--gpus-per-worker must be 0 or 1, got 4"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(
    cluster: tuple[str, int, int, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        launch.Cluster(*cluster)


def test_a_cluster_with_too_little_says_what_is_there() -> None:
    launch.check_resources(_ON_CPU, {"CPU": 2.0})
    with pytest.raises(ConfigError, match="2 workers need 2 CPUs, the cluster has 1: lower"):
        launch.check_resources(_ON_CPU, {"CPU": 1.0})
    on_gpus = launch.Cluster("auto", 2, 1, 1)
    with pytest.raises(
        ConfigError, match=r"need 2 GPUs, the cluster has 0: .* --gpus-per-worker 0"
    ):
        launch.check_resources(on_gpus, {"CPU": 8.0})


def test_a_job_is_what_the_options_say(
    manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--shards", manifest, "--config", "dit_debug", "--steps", "3", "--resume", "never"]
    job = launch.make_job(options, _ON_CPU)
    assert (job.config.steps, job.config.compute.device) == (3, "cpu")
    assert job.config.data.shards == (manifest,)
    assert job.config.data.weights is None
    assert (job.folder, job.out, job.resume) == (tmp_path, Path("runs/dit_debug"), "never")
    for setting, message in (
        ("parallel.context_ranks=3", "does not divide the 2 processes"),
        ("compute.device=cuda", "but --gpus-per-worker is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            launch.make_job([*options, "--set", setting], _ON_CPU)


def test_without_ray_train_one_line_says_what_to_install(
    manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray.train.torch", None)
    code, said = _launch(monkeypatch, config_of(DIT, manifest, data=_PLAN), tmp_path / "run")
    assert code == 1
    assert said.startswith("error: Ray Train is not installed")
    assert said.endswith("pip install 'reelsieve[launch]'\n")
    assert not (tmp_path / "run").exists()
