"""Device, precision and recomputation, as configured or as the machine allows."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Literal

import torch
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from modeling.attention_check import BACKENDS, AttentionChoice, choose_attention
from modeling.block_operations import BlockOperations
from modeling.dit import Contexts
from modeling.dit_config import DiTConfig
from modeling.kernels.select import KernelChoice, Kernels, choose_kernels, choose_vae_kernels
from modeling.train.config import ComputeConfig
from modeling.train.cost import Memory
from modeling.train.errors import ConfigError
from modeling.vae_operations import VaeOperations

Checkpointing = Literal["off", "selective", "full"]
_CHECKPOINTINGS: tuple[Checkpointing, ...] = ("off", "selective", "full")
_USABLE_SHARE = 0.85  # of a device's memory; the rest is fragmentation and the estimate's error

_aten = torch.ops.aten
# Products are dear to compute and their results small beside what lies between them.
_KEPT_RESULTS = [
    _aten.mm.default,
    _aten.addmm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
]


def pick_device(config: ComputeConfig, local_rank: int = 0) -> torch.device:
    """Raises ConfigError if CUDA is asked for and absent."""
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise ConfigError("compute.device = 'cuda', but PyTorch finds no CUDA device")
    if config.device == "cpu" or not has_cuda:
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


def prepare(config: ComputeConfig, device: torch.device) -> None:
    """Process-wide switches. Call it once, before anything runs on the device."""
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = not config.deterministic
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)


def precision(config: ComputeConfig, device: torch.device) -> torch.dtype:
    """Of products and activations; bf16 on a GPU unless told otherwise."""
    if config.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if config.precision == "bf16" else torch.float32


def kernel_choice(config: ComputeConfig, device: torch.device) -> KernelChoice[BlockOperations]:
    """Plain or fused operations of a DiT's blocks. Raises ConfigError if fused ones cannot run."""
    return _kernel_choice(config.kernels, device, precision(config, device))


def vae_kernel_choice(config: ComputeConfig, device: torch.device) -> KernelChoice[VaeOperations]:
    """As `kernel_choice`, of a VAE's convolutions."""
    return _vae_kernel_choice(config.kernels, device, precision(config, device))


@cache
def _kernel_choice(
    wanted: Kernels, device: torch.device, dtype: torch.dtype
) -> KernelChoice[BlockOperations]:
    try:
        return choose_kernels(wanted, device, dtype)
    except ValueError as error:
        raise ConfigError(str(error)) from error


@cache
def _vae_kernel_choice(
    wanted: Kernels, device: torch.device, dtype: torch.dtype
) -> KernelChoice[VaeOperations]:
    try:
        return choose_vae_kernels(wanted, device, dtype)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def attention_choice(
    config: ComputeConfig, network: DiTConfig, device: torch.device
) -> AttentionChoice | None:
    """The attention of a DiT on a GPU, checked; None: PyTorch's own choice, as on a CPU.

    Raises ConfigError if the configured backend is wrong here.
    """
    if config.attention == "auto" and device.type != "cuda":
        return None
    dtype = precision(config, device)
    return _attention_choice(config.attention, device, dtype, network.attention_head_dim)


@cache
def _attention_choice(
    wanted: str, device: torch.device, dtype: torch.dtype, head_dim: int
) -> AttentionChoice:
    order = tuple(BACKENDS)
    if wanted != "auto":
        # Calls that it does not take, such as masked ones, still need another.
        order = (wanted, *(name for name in order if name != wanted))
    try:
        choice = choose_attention(device, dtype, head_dim=head_dim, order=order)
    except RuntimeError as error:
        raise ConfigError(str(error)) from error
    fault = next(v.fault for v in choice.verdicts if v.backend == order[0] and not v.masked)
    if wanted != "auto" and fault is not None:
        raise ConfigError(f"compute.attention = {wanted!r} is wrong on this machine: {fault}")
    return choice


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def choose_checkpointing(
    wanted: Literal["auto", "off", "selective", "full"],
    estimate: Callable[[Checkpointing], Memory],
    available: float | None,
) -> Checkpointing:
    """The fastest that fits by the estimate; on a CPU none."""
    if wanted != "auto":
        return wanted
    if available is None:
        return "off"
    for each in _CHECKPOINTINGS:
        if estimate(each).total <= available * _USABLE_SHARE:
            return each
    return "full"


def selective_contexts() -> Callable[[], Contexts]:
    """Keep the results of products and attention, recompute the rest."""
    return partial(create_selective_checkpoint_contexts, _KEPT_RESULTS)
