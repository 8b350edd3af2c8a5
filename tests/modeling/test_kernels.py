"""The Triton kernels against the plain operations: values and gradients."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modeling.block_operations import PLAIN
from modeling.dit import VideoDiT
from modeling.kernels.check import find_fault
from modeling.kernels.select import apply_kernels, choose_kernels, choose_vae_kernels
from modeling.kernels.vae_check import apply_vae_operations, find_vae_fault
from modeling.vae import CausalVAE
from modeling.vae_operations import PLAIN_VAE, Sizes
from tests.modeling.random_networks import TINY_DIT, TINY_VAE

ROOT = Path(__file__).resolve().parents[2]
LIMITS = {"float32": 2e-6, "bfloat16": 1e-2}


def run_cases(environment: dict[str, str]) -> dict[str, float]:
    script = Path(__file__).with_name("kernels_against_plain.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["case"]: row["difference"] for row in rows}


def assert_all_agree(found: dict[str, float]) -> None:
    assert {name.split()[0] for name in found} == {
        "norm", "gate", "both", "apart", "join", "turn", "network", "vae-norm", "vae-enlarge",
        "vae-conv",
    }  # fmt: skip
    wrong = {name: value for name, value in found.items() if value > LIMITS[name.split()[-1]]}
    assert wrong == {}


@pytest.mark.timeout(600)
def test_interpreted_kernels_equal_the_plain_operations() -> None:
    pytest.importorskip("triton")
    # Without CUDA devices even where there are some: this is the interpreter's test.
    assert_all_agree(run_cases({"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_kernels_equal_the_plain_operations() -> None:
    assert_all_agree(run_cases({}))


def operations_of(network: nn.Module) -> set[object]:
    return {m.operations for m in network.modules() if hasattr(m, "operations")}


CPU = torch.device("cpu")


def test_auto_is_plain_on_a_cpu_and_says_why() -> None:
    choice = choose_kernels("auto", CPU, torch.float32)
    assert choice.operations is PLAIN
    assert "CPU" in choice.reason


def test_fused_on_a_cpu_is_refused_not_replaced() -> None:
    with pytest.raises(ValueError, match="'fused'"):
        choose_kernels("fused", CPU, torch.float32)


def test_the_check_finds_a_wrong_gradient() -> None:
    def no_gate_gradient(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
        return PLAIN.gated_add(x, gate.detach(), y) + 0 * gate

    assert find_fault(PLAIN, CPU, torch.float32) is None
    fault = find_fault(PLAIN._replace(gated_add=no_gate_gradient), CPU, torch.float32)
    assert fault == "gated_add is off by 1"


def test_a_choice_reaches_every_block() -> None:
    other = PLAIN._replace(gated_add=lambda x, gate, y: x)
    network = VideoDiT(TINY_DIT)
    assert operations_of(network) == {PLAIN}
    apply_kernels(network, other)
    assert operations_of(network) == {other}


def test_a_vae_on_a_cpu_stays_plain_and_refuses_fused() -> None:
    assert choose_vae_kernels("auto", CPU, torch.float32).operations is PLAIN_VAE
    with pytest.raises(ValueError, match="'fused'"):
        choose_vae_kernels("fused", CPU, torch.float32)


def test_the_check_of_a_vae_finds_a_wrong_edge() -> None:
    def zeros_at_edges(x: Tensor, padding: Sizes) -> Tensor:
        t, h, w = padding
        return nn.functional.pad(x, (w, w, h, h, t, 0))

    assert find_vae_fault(PLAIN_VAE, CPU, torch.float32) is None
    fault = find_vae_fault(PLAIN_VAE._replace(pad=zeros_at_edges), CPU, torch.float32)
    assert fault is not None
    assert fault.startswith("the result of a clip is off by ")


def test_the_check_of_a_vae_in_bf16_takes_what_rounds_and_finds_what_is_wrong() -> None:
    def doubled(norm: nn.GroupNorm, *rest: Any) -> Tensor:
        factor = 2.0 if torch.is_autocast_enabled("cpu") else 1.0
        return PLAIN_VAE.norm_silu_pad(norm, *rest) * factor

    def rounded(norm: nn.GroupNorm, x: Tensor, padding: Sizes) -> Tensor:
        return PLAIN_VAE.norm_silu_pad(norm, (x * 16).round() / 16, padding)

    assert find_vae_fault(PLAIN_VAE, CPU, torch.bfloat16) is None
    assert find_vae_fault(PLAIN_VAE._replace(norm_silu_pad=rounded), CPU, torch.float32) is not None
    fault = find_vae_fault(PLAIN_VAE._replace(norm_silu_pad=doubled), CPU, torch.bfloat16)
    assert fault is not None


def test_a_choice_reaches_every_convolution_of_a_vae() -> None:
    other = PLAIN_VAE._replace(pad=lambda x, padding: x)
    vae = CausalVAE(TINY_VAE)
    apply_vae_operations(vae, other)
    assert operations_of(vae) == {other}
