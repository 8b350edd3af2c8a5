"""The self-check of attention backends, with wrong ones planted."""

import pytest
import torch
from torch import Tensor

from modeling.attention import Attention, attend
from modeling.attention_check import BACKENDS, choose_attention
from modeling.dit import VideoDiT
from modeling.dit_layers import SingleBlock
from tests.modeling.random_networks import TINY_DIT

CPU = torch.device("cpu")
LENGTHS = (1, 17, 64)


class _Poison(torch.autograd.Function):
    """Passes values on and spoils gradients: a backend that is wrong in its backward pass only."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        del ctx
        return x.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        del ctx
        spoiled = gradients[0].clone()
        spoiled[0, 0, 0, 0] = torch.nan
        return spoiled


def nan_gradient_at_64(q: Tensor, k: Tensor, v: Tensor, num_valid_B: Tensor | None) -> Tensor:
    if q.shape[2] % 128 == 64:
        k = _Poison.apply(k)
    return attend(q, k, v, num_valid_B)


def deaf_to_masks(q: Tensor, k: Tensor, v: Tensor, num_valid_B: Tensor | None) -> Tensor:
    del num_valid_B
    return attend(q, k, v, None)


def slightly_off(q: Tensor, k: Tensor, v: Tensor, num_valid_B: Tensor | None) -> Tensor:
    return 1.01 * attend(q, k, v, num_valid_B)


def unable(q: Tensor, k: Tensor, v: Tensor, num_valid_B: Tensor | None) -> Tensor:
    raise RuntimeError("No available kernel.\nAborting execution.")


def unable_at_one_token(q: Tensor, k: Tensor, v: Tensor, num_valid_B: Tensor | None) -> Tensor:
    if q.shape[2] == 1:
        return unable(q, k, v, num_valid_B)
    return attend(q, k, v, num_valid_B)


def faults(wrong: Attention) -> dict[bool, str | None]:
    choice = choose_attention(
        CPU, torch.float32, head_dim=8, candidates={"x": wrong, "good": attend}, lengths=LENGTHS
    )
    return {v.masked: v.fault for v in choice.verdicts if v.backend == "x"}


def test_wrong_gradients_at_one_length_are_found() -> None:
    found = faults(nan_gradient_at_64)
    assert found[False] == found[True] == "gradient of k is not finite at 64 tokens"


def test_a_small_error_is_found() -> None:
    fault = faults(slightly_off)[False]
    assert fault is not None
    assert fault.startswith("output is off by 0.01")


def test_what_is_right_without_mask_alone_is_used_without_mask_alone() -> None:
    candidates: dict[str, Attention] = {"deaf": deaf_to_masks, "good": attend}
    choice = choose_attention(
        CPU, torch.float32, head_dim=8, candidates=candidates, lengths=LENGTHS
    )
    assert choice.describe().startswith("deaf, masked good; refused deaf with mask: output is off")
    q, k, v = torch.randn(3, 2, 1, 6, 8)
    valid = torch.tensor([6, 3])
    torch.testing.assert_close(choice.attention(q, k, v, valid), attend(q, k, v, valid))


def test_a_backend_that_declines_every_call_is_refused() -> None:
    assert faults(unable) == dict.fromkeys((False, True), "No available kernel at any length")


def test_a_call_that_a_backend_declines_goes_to_the_next() -> None:
    candidates: dict[str, Attention] = {"picky": unable_at_one_token, "good": attend}
    choice = choose_attention(
        CPU, torch.float32, head_dim=8, candidates=candidates, lengths=LENGTHS
    )
    each = "picky (declines 1 tokens)"
    assert choice.describe() == f"{each}, masked {each}"
    for num_tokens in (1, 6):
        q, k, v = torch.randn(3, 2, 1, num_tokens, 8)
        torch.testing.assert_close(choice.attention(q, k, v, None), attend(q, k, v, None))


def test_an_error_that_is_no_refusal_is_a_fault() -> None:
    def broken(q: Tensor, k: Tensor, v: Tensor, num_valid_B: Tensor | None) -> Tensor:
        raise RuntimeError("CUDA error: misaligned address\nmore")

    assert faults(broken)[False] == "CUDA error: misaligned address (1 tokens)"


def test_no_right_backend_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match=r"no attention backend is right on cpu.*off by"):
        choose_attention(
            CPU, torch.float32, head_dim=8, candidates={"x": slightly_off}, lengths=LENGTHS
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pytorchs_own_backends(dtype: torch.dtype) -> None:
    choice = choose_attention(CPU, dtype, head_dim=16, lengths=LENGTHS)
    right = {v.backend for v in choice.verdicts if v.fault is None}
    assert "math" in right
    assert "cudnn" not in right
    assert {v.backend for v in choice.verdicts} == set(BACKENDS)
    q, k, v = torch.randn(3, 2, 3, 9, 16).to(dtype)
    for valid in (None, torch.tensor([9, 4])):
        torch.testing.assert_close(choice.attention(q, k, v, valid), attend(q, k, v, valid))


def test_the_choice_survives_compilation() -> None:
    choice = choose_attention(CPU, torch.float32, head_dim=16, lengths=(17,))
    network = VideoDiT(TINY_DIT)
    block = network.single_blocks[0]
    assert isinstance(block, SingleBlock)
    block.attention = choice.attention

    def run(q: Tensor) -> Tensor:
        return block.attention(q, q, q, None)

    q = torch.randn(1, 2, 6, 16)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(q), attend(q, q, q, None))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_has_a_right_backend_beside_math() -> None:
    choice = choose_attention(torch.device("cuda"), torch.bfloat16, head_dim=128)
    right = {v.backend for v in choice.verdicts if not v.masked and v.fault is None}
    assert right - {"math"}
