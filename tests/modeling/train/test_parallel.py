"""Several processes train as one: same losses and gradients, and checkpoints go between them."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modeling.train import checkpoint, cli
from modeling.train.cost import dit_memory
from modeling.train.errors import ConfigError
from modeling.train.layout import Layout, find_layout
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

_HERE = Path(__file__).parent
_PLAN = {"plan": {"global_batch": 2, "batch_multiple": 2}}
# fp32: sums are taken in another order, and Adam's first steps enlarge what that rounds.
_TOLERANCE = 2e-3
_FIRST_TOLERANCE = 1e-4  # of the first step on two processes, whose weights are the same
_NUM_STEPS = 6


@dataclass(frozen=True)
class _Case:
    kind: dict[str, Any]
    parallel: dict[str, Any] = field(default_factory=dict)
    num_heads: int = 2
    micro_batch: int | None = None  # on two processes

    @property
    def network(self) -> dict[str, Any]:
        if self.kind is VAE:
            return {}
        return {"dit": {"network": {"num_attention_heads": self.num_heads}}}


_CASES = {
    "dit-ddp": _Case(DIT),
    "vae-ddp": _Case(VAE),
    "dit-ulysses": _Case(DIT, {"context_ranks": 2}),
    "dit-gathered": _Case(DIT, {"context_ranks": 2}, num_heads=3),
    "dit-fsdp": _Case(DIT, {"data": "fsdp"}),
    "dit-hsdp": _Case(DIT, {"data": "hsdp", "shard_ranks": 2}),
    # Both samples on both processes, one after the other: gradients add up in between.
    "dit-fsdp-ulysses": _Case(DIT, {"data": "fsdp", "context_ranks": 2}, micro_batch=1),
}


def _torchrun(num_processes: int, *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(num_processes), *command),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def _finish(process: "subprocess.Popen[str]") -> str:
    """What it said; killed with its children if it does not end."""
    try:
        said, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise
    return said


@pytest.fixture(scope="module")
def runs(manifest: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each case twice: alone, and with steps 2 to 5 on two processes, which are started once."""
    folder = tmp_path_factory.mktemp("runs")
    jobs = []
    for name, case in _CASES.items():
        _run_alone(case, manifest, folder / name, 1)
        over = {
            "parallel": case.parallel,
            "compute": {"micro_batch": case.micro_batch},
            **case.network,
        }
        layers = tables(case.kind, manifest, steps=_NUM_STEPS - 1, data=_PLAN, **over)
        jobs.append([layers, str(folder / name)])
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs))
    process = _torchrun(2, str(_HERE / "several_runs.py"), str(file))
    said = _finish(process)
    assert process.returncode == 0, said[-3000:]
    return folder


def _run_alone(case: _Case, manifest: str, out: Path, steps: int) -> None:
    config = config_of(case.kind, manifest, steps=steps, data=_PLAN, **case.network)
    make_trainer(config, out).run()


def _facts(out: Path) -> list[list[float]]:
    return [[row["loss"], row["grad_norm"], float(row["samples"])] for row in metrics(out)]


@pytest.mark.parametrize("name", _CASES)
def test_two_processes_train_as_one_and_hand_over(
    name: str, manifest: str, runs: Path, tmp_path: Path
) -> None:
    case, both = _CASES[name], runs / name
    assert checkpoint_steps(both) == [1, _NUM_STEPS - 1]
    assert (both / "final" / "ema.safetensors").is_file()
    _run_alone(case, manifest, both, _NUM_STEPS)
    _run_alone(case, manifest, tmp_path, _NUM_STEPS)
    facts, expected = _facts(both), _facts(tmp_path)
    assert len(facts) == len(expected) == _NUM_STEPS
    for row, wanted in zip(facts, expected, strict=True):
        assert row == pytest.approx(wanted, rel=_TOLERANCE)
    assert facts[1] == pytest.approx(expected[1], rel=_FIRST_TOLERANCE)


def test_gradients_over_any_layout_are_those_of_the_whole(tmp_path: Path) -> None:
    """In float64, with an odd number of tokens, texts of two lengths and recomputation."""
    layouts = [  # heads, context ranks, shard ranks
        *("2,2,1", "3,2,1"),  # Ulysses; keys and values gathered
        *("2,1,4", "2,1,2"),  # FSDP; two copies of two shards
        *("2,2,4", "3,2,2"),  # and with divided tokens
    ]
    answer = tmp_path / "answer"
    process = _torchrun(4, str(_HERE / "layout_gradients.py"), str(answer), *layouts)
    said = _finish(process)
    assert process.returncode == 0, said[-3000:]
    found = dict(zip(layouts, map(float, answer.read_text().split()), strict=True))
    assert {layout: each for layout, each in found.items() if each > 1e-13} == {}


def test_sigterm_to_the_launcher_saves_and_says_how_to_go_on(manifest: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    over = {"checkpoint": {"every": 2}, "parallel": {"data": "fsdp"}}
    layers = tables(DIT, manifest, steps=100_000, data=_PLAN, **over)
    program = tmp_path / "program.py"
    program.write_text(
        "from modeling.train import cli, config_file\n"
        f"cli.make_config = lambda *args: config_file.build_config({layers!r})\n"
        "cli.app()\n"
    )
    process = _torchrun(2, str(program), "--out", str(out))
    deadline = time.monotonic() + TIMEOUT_S
    while not checkpoint_steps(out) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = _finish(process)
    step = checkpoint_steps(out)[-1]
    assert said.count(f"SIGTERM: saved step {step} in {out}") == 1, said[-3000:]
    assert f"torchrun --nproc-per-node 2 -m modeling.train --out {out}" in said
    assert step == metrics(out)[-1]["step"]
    assert checkpoint.damage(out / "checkpoints" / f"step-{step:08d}") is None
    trainer = make_trainer(config_of(DIT, manifest, steps=step + 1, data=_PLAN), out)
    assert trainer.step == step
    trainer.run()


_IMPOSSIBLE = [
    (DIT, {"context_ranks": 2}, "context_ranks = 2 does not divide the 3 processes"),
    (VAE, {"context_ranks": 3}, "is for a DiT: a VAE has no tokens"),
    (VAE, {"data": "fsdp"}, "is for a DiT: a VAE is small"),
    (DIT, {"data": "hsdp", "shard_ranks": 2}, "shard_ranks = 2 does not divide the 3"),
    (DIT, {"data": "hsdp"}, "each has 1 process"),
]


@pytest.mark.parametrize(("kind", "parallel", "message"), _IMPOSSIBLE)
def test_a_layout_that_cannot_be_is_refused(
    kind: dict[str, Any], parallel: dict[str, Any], message: str, manifest: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        find_layout(config_of(kind, manifest, parallel=parallel), 3, 1)


def test_shards_of_muon_and_of_one_copy_are_refused(manifest: str) -> None:
    muon = config_of(DIT, manifest, parallel={"data": "fsdp"}, optim={"optimizer": "muon"})
    with pytest.raises(ConfigError, match="matrices that Muon needs whole"):
        find_layout(muon, 2, 2)
    with pytest.raises(ConfigError, match="has no effect on data = 'fsdp'"):
        config_of(DIT, manifest, parallel={"data": "fsdp", "shard_ranks": 2})


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_says_what_all_find(
    rank: int, manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(DIT, manifest, parallel={"context_ranks": 2})
    monkeypatch.setattr(cli, "make_config", lambda *args: config)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", str(rank))
    done = CliRunner().invoke(cli.app, ["--out", str(tmp_path / "run")])
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == (1 if rank == 0 else 0)
    assert not (tmp_path / "run").exists()


def test_the_layout_is_found_and_said(manifest: str) -> None:
    hsdp = config_of(DIT, manifest, parallel={"data": "hsdp", "context_ranks": 2})
    layout = find_layout(hsdp, 16, 8)
    assert (layout.data_ranks, layout.num_copies, layout.shard_ranks) == (8, 2, 8)
    assert layout.describe() == (
        "16 processes divide the batch by 8, each sample by 2, "
        "2 copies of weights, average and optimizer over 8 each"
    )
    alone = config_of(DIT, manifest, parallel={"data": "hsdp", "shard_ranks": 8})
    assert find_layout(alone, 1, 1) == Layout()


def test_shards_need_less_memory_each(manifest: str) -> None:
    network = config_of(DIT, manifest).dit.network_config
    whole, shard = (
        dit_memory(
            network,
            10**9,
            num_tokens=0,
            checkpointing="off",
            value_bytes=2,
            has_ema=True,
            num_shards=num_shards,
        ).weights
        for num_shards in (1, 8)
    )
    assert whole == 20e9
    assert whole / 8 < shard < whole
