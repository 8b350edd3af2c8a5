"""On a GPU in deterministic mode too: steps in two runs are the steps of one, to the bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling.train import compute, report
from modeling.train.config import TrainConfig
from modeling.train.parallel import SingleProcess
from modeling.train.stream import BatchStream, open_corpus
from modeling.train.trainer import Trainer
from tests.modeling.train.runs import DIT, VAE, checkpoint_bits, config_of, metrics


@pytest.fixture
def _deterministic_mode_ends() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(mode=False)


def train(config: TrainConfig, out: Path) -> None:
    device = compute.pick_device(config.compute)
    compute.prepare(config.compute, device)
    parallel = SingleProcess(device)
    stream = BatchStream(open_corpus(config.data), config)
    plan = report.make_plan(config, stream, device)
    Trainer(config, out, parallel, stream=stream, plan=plan, resume="auto").run()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("_deterministic_mode_ends")
@pytest.mark.parametrize(
    ("kind", "settings"),
    [(DIT, {"kernels": "plain"}), (DIT, {"kernels": "fused"}), (DIT, {"compile": True}), (VAE, {})],
    ids=["plain dit", "fused dit", "compiled dit", "vae"],
)
def test_three_steps_and_then_six_are_six_at_once_on_a_gpu(
    kind: dict[str, Any], settings: dict[str, Any], manifest: str, tmp_path: Path
) -> None:
    settings = {"device": "cuda", "deterministic": True, **settings}
    for out, stops in ((tmp_path / "twice", (3, 6)), (tmp_path / "once", (6,))):
        for steps in stops:
            train(config_of(kind, manifest, steps=steps, compute=settings), out)
    assert checkpoint_bits(tmp_path / "twice", 6) == checkpoint_bits(tmp_path / "once", 6)
    losses = [[row["loss"] for row in metrics(tmp_path / name)] for name in ("twice", "once")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6
