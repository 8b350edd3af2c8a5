"""Which form of the blocks' operations a run uses: plain PyTorch or the Triton kernels."""

from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch

from modeling.block_operations import PLAIN, BlockOperations
from modeling.dit import VideoDiT
from modeling.kernels.check import find_fault

Kernels = Literal["auto", "fused", "plain"]

# The tensor cores and the bf16 arithmetic that the kernels were written for (Ampere and later).
_MIN_CAPABILITY = (8, 0)


class KernelChoice(NamedTuple):
    name: Literal["fused", "plain"]
    operations: BlockOperations
    reason: str


def missing_for_fused(device: torch.device) -> str | None:
    """Why the fused kernels cannot run on this device; None: they can."""
    if device.type != "cuda":
        return f"they need a CUDA device, not a {device.type.upper()}"
    if find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability < _MIN_CAPABILITY:
        return f"the device has compute capability {capability}, they need {_MIN_CAPABILITY}"
    return None


def choose_kernels(wanted: Kernels, device: torch.device, dtype: torch.dtype) -> KernelChoice:
    """The kernels to use and why. Fused ones are compared with the plain operations first.

    Raises:
        ValueError: fused ones are asked for and cannot run here, or are wrong here.

    """
    if wanted == "plain":
        return KernelChoice("plain", PLAIN, "as configured")
    fault = missing_for_fused(device)
    if fault is None:
        from modeling.kernels.operations import FUSED  # Triton, which not every platform has

        fault = _fault_of(FUSED, device, dtype)
        if fault is None:
            return KernelChoice("fused", FUSED, "checked against the plain ones")
    if wanted == "fused":
        raise ValueError(f"compute.kernels = 'fused', but {fault}")
    return KernelChoice("plain", PLAIN, f"no fused kernels: {fault}")


def _fault_of(fused: BlockOperations, device: torch.device, dtype: torch.dtype) -> str | None:
    from triton.errors import TritonError  # type: ignore[import-untyped]

    try:
        return find_fault(fused, device, dtype)
    except (RuntimeError, TritonError) as error:  # no C compiler, no such instruction, ...
        return f"they do not compile: {str(error).splitlines()[0]}"


def apply_kernels(network: VideoDiT, operations: BlockOperations) -> None:
    """Give every block these operations. Before it is compiled."""
    for block in [*network.double_blocks, *network.single_blocks]:
        block.operations = operations
