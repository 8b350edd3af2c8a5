"""Two processes train as one: the same losses and gradients, and checkpoints go between them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modeling.train import data_parallel
from modeling.train.errors import ConfigError
from tests.modeling.train.runs import (
    DIT,
    ROOT,
    TIMEOUT_S,
    VAE,
    checkpoint_steps,
    config_of,
    make_trainer,
    metrics,
    tables,
)

_PROGRAM = (
    "import json, sys; from modeling.train import cli, config_file; "
    "layers = json.load(open(sys.argv.pop(1))); "
    "cli.make_config = lambda *args: config_file.build_config(layers); "
    "cli.app()"
)
_PLAN = {"plan": {"global_batch": 2, "batch_multiple": 2}}
# fp32: sums are taken in another order, and Adam's first steps enlarge what that rounds.
_TOLERANCE = 2e-3
_FIRST_TOLERANCE = 1e-4  # of the first step on two processes, whose weights are the same


def _run_on_two(
    kind: dict[str, Any], manifest: str, out: Path, steps: int, **over: Any
) -> "subprocess.CompletedProcess[str]":
    file = out.parent / f"{out.name}.json"
    file.write_text(json.dumps(tables(kind, manifest, steps=steps, data=_PLAN, **over)))
    program = file.with_suffix(".py")
    program.write_text(_PROGRAM)
    return _launch(str(program), str(file), "--out", str(out))


def _launch(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", *command),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def _facts(out: Path) -> list[list[float]]:
    return [[row["loss"], row["grad_norm"], float(row["samples"])] for row in metrics(out)]


def _assert_same(out: Path, other: Path, num_steps: int) -> None:
    facts, others = _facts(out), _facts(other)
    assert len(facts) == len(others) == num_steps
    for row, expected in zip(facts, others, strict=True):
        assert row == pytest.approx(expected, rel=_TOLERANCE)
    assert facts[1] == pytest.approx(others[1], rel=_FIRST_TOLERANCE)


@pytest.mark.parametrize(
    ("kind", "context_ranks", "num_heads"),
    [(DIT, 1, 2), (VAE, 1, 2), (DIT, 2, 2), (DIT, 2, 3)],
    ids=["dit-ddp", "vae-ddp", "dit-ulysses", "dit-gathered"],
)
def test_two_processes_train_as_one_and_hand_over(
    kind: dict[str, Any], context_ranks: int, num_heads: int, manifest: str, tmp_path: Path
) -> None:
    heads = {"dit": {"network": {"num_attention_heads": num_heads}}} if kind is DIT else {}
    divided = {"parallel": {"context_ranks": context_ranks}, **heads}
    one, both = tmp_path / "one", tmp_path / "both"

    def run_alone(out: Path, steps: int) -> None:
        make_trainer(config_of(kind, manifest, steps=steps, data=_PLAN, **heads), out).run()

    run_alone(one, 6)
    run_alone(both, 1)
    done = _run_on_two(kind, manifest, both, 5, **divided)
    assert done.returncode == 0, done.stderr[-3000:]
    run_alone(both, 6)
    _assert_same(both, one, 6)
    assert checkpoint_steps(both)[-1] == 6


def test_a_layout_that_cannot_be_is_refused(manifest: str) -> None:
    two = {"parallel": {"context_ranks": 2}}
    with pytest.raises(ConfigError, match="context_ranks = 2 does not divide the 3 processes"):
        data_parallel.check_layout(config_of(DIT, manifest, **two), 3)
    with pytest.raises(ConfigError, match="is for a DiT"):
        data_parallel.check_layout(config_of(VAE, manifest, **two), 2)


@pytest.mark.parametrize("num_heads", [2, 3], ids=["ulysses", "gathered"])
def test_gradients_over_divided_tokens_are_those_of_the_whole(
    num_heads: int, tmp_path: Path
) -> None:
    """In float64, with an odd number of tokens, texts of two lengths and recomputation."""
    program, answer = Path(__file__).with_name("context_gradients.py"), tmp_path / "answer"
    done = _launch(str(program), str(num_heads), str(answer))
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(answer.read_text()) < 1e-13
