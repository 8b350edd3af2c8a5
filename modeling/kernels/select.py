"""Which form of the networks' operations a run uses: plain PyTorch or the Triton kernels."""

import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Generic, Literal, NamedTuple, TypeVar

import torch

from modeling.block_operations import PLAIN, BlockOperations
from modeling.dit import VideoDiT
from modeling.kernels.check import find_fault
from modeling.kernels.vae_check import apply_vae_operations, find_vae_fault
from modeling.vae import CausalVAE
from modeling.vae_operations import PLAIN_VAE, VaeOperations

logger = logging.getLogger(__name__)

Kernels = Literal["auto", "fused", "plain"]

# The tensor cores and the bf16 arithmetic that the kernels were written for (Ampere and later).
_MIN_CAPABILITY = (8, 0)


Operations = TypeVar("Operations", BlockOperations, VaeOperations)


class KernelChoice(NamedTuple, Generic[Operations]):
    name: Literal["fused", "plain"]
    operations: Operations
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


def choose_kernels(
    wanted: Kernels, device: torch.device, dtype: torch.dtype
) -> KernelChoice[BlockOperations]:
    """The operations of a DiT's blocks and why. Fused ones are compared with the plain ones first.

    Raises:
        ValueError: fused ones are asked for and cannot run here, or are wrong here.

    """

    def fused() -> BlockOperations:
        from modeling.kernels.operations import FUSED  # Triton, which not every platform has

        return FUSED

    return _choose(wanted, device, PLAIN, fused, lambda op: find_fault(op, device, dtype))


def choose_vae_kernels(
    wanted: Kernels, device: torch.device, dtype: torch.dtype
) -> KernelChoice[VaeOperations]:
    """As `choose_kernels`, for what a VAE does around its convolutions."""

    def fused() -> VaeOperations:
        from modeling.kernels.vae_operations import FUSED_VAE

        return FUSED_VAE

    return _choose(wanted, device, PLAIN_VAE, fused, lambda op: find_vae_fault(op, device, dtype))


def _choose(
    wanted: Kernels,
    device: torch.device,
    plain: Operations,
    load_fused: Callable[[], Operations],
    find: Callable[[Operations], str | None],
) -> KernelChoice[Operations]:
    if wanted == "plain":
        return KernelChoice("plain", plain, "as configured")
    fault = missing_for_fused(device)
    if fault is None:
        fused = load_fused()
        fault = _fault_of(fused, find)
        if fault is None:
            return KernelChoice("fused", fused, "checked against the plain ones")
    if wanted == "fused":
        raise ValueError(f"compute.kernels = 'fused', but {fault}")
    return KernelChoice("plain", plain, f"no fused kernels: {fault}")


def _fault_of(fused: Operations, find: Callable[[Operations], str | None]) -> str | None:
    from triton.errors import TritonError  # type: ignore[import-untyped]

    try:
        return find(fused)
    except (RuntimeError, TritonError) as error:  # no C compiler, no such instruction, ...
        return f"they do not compile: {str(error).splitlines()[0]}"


def apply_kernels(network: VideoDiT, operations: BlockOperations) -> None:
    """Give every block these operations. Before it is compiled."""
    for block in [*network.double_blocks, *network.single_blocks]:
        block.operations = operations


def speed_up(vae: CausalVAE, dtype: torch.dtype) -> CausalVAE:
    """Give a VAE the operations that "auto" finds for its device, and log which."""
    choice = _best_for_vae(next(vae.parameters()).device, dtype)
    apply_vae_operations(vae, choice.operations)
    return vae


@cache
def _best_for_vae(device: torch.device, dtype: torch.dtype) -> KernelChoice[VaeOperations]:
    choice = choose_vae_kernels("auto", device, dtype)
    logger.info("VAE: %s operations (%s)", choice.name, choice.reason)
    return choice
