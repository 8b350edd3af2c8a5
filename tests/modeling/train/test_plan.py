"""What the printed plan says of how blocks compute and of what is trained."""

from typing import Any

import pytest
import torch

from modeling.train import report
from modeling.train.errors import ConfigError
from modeling.train.stream import BatchStream, open_corpus
from tests.modeling.train.runs import DIT, VAE, config_of

_NO_KERNELS = "they need a CUDA device, not a CPU"


def _plan(kind: dict[str, Any], manifest: str, **over: Any) -> list[str]:
    config = config_of(kind, manifest, **over)
    stream = BatchStream(open_corpus(config.data), config)
    return report.describe(report.make_plan(config, stream, torch.device("cpu")))


def _lines_from(plan: list[str], head: str, number: int) -> list[str]:
    first = next(n for n, line in enumerate(plan) if line.startswith(f"{head} "))
    return plan[first : first + number]


@pytest.mark.parametrize(
    ("chosen", "operations", "attention"),
    [
        ({}, f"plain operations (no fused kernels: {_NO_KERNELS})", "PyTorch's choice"),
        ({"kernels": "plain"}, "plain operations (as configured)", "PyTorch's choice"),
        ({"attention": "math"}, f"plain operations (no fused kernels: {_NO_KERNELS})", "math"),
    ],
)
def test_the_plan_says_how_blocks_compute_and_why(
    chosen: dict[str, str], operations: str, attention: str, manifest: str
) -> None:
    first, second = _lines_from(_plan(DIT, manifest, compute=chosen), "blocks", 2)
    assert first == f"blocks   {operations}"
    assert second.startswith(f"         attention {attention}")


def test_kernels_that_cannot_run_are_refused_in_one_line(manifest: str) -> None:
    with pytest.raises(ConfigError, match=f"compute.kernels = 'fused', but {_NO_KERNELS}$"):
        _plan(DIT, manifest, compute={"kernels": "fused"})


def test_the_plan_of_a_vae_says_the_same_but_for_attention(manifest: str) -> None:
    plan = _plan(VAE, manifest)
    (line,) = _lines_from(plan, "blocks", 1)
    assert line == f"blocks   plain operations (no fused kernels: {_NO_KERNELS})"
    assert not any("attention" in line for line in plan)


def test_the_plan_says_how_little_lora_trains(manifest: str) -> None:
    (line,) = _lines_from(_plan(DIT, manifest, lora={"rank": 2}), "lora", 1)
    assert line.startswith("lora     rank 2 on 10 kinds of layers: ")
    # Width 16, MLP 64: two streams of a dual block, then a single block; twice (in + out).
    num = 2 * (2 * ((16 + 48) + (16 + 16) + (16 + 64) + (64 + 16)) + (16 + 112) + (80 + 16))
    assert f" {num:,} parameters are trained, all others stay" in line
    assert not any(line.startswith("lora") for line in _plan(DIT, manifest))
