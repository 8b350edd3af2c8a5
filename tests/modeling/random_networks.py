"""Networks whose every tensor is random: zeros at the start would make comparisons empty."""

from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from modeling.dit import DIT_CONFIGS, DiTConfig
from modeling.vae import VAE_CONFIGS, VAEConfig
from modeling.vae_tiling import TilingConfig

AnyModule = TypeVar("AnyModule", bound=nn.Module)

TINY_DIT = DIT_CONFIGS["tiny"].model_copy(update={"guidance_embeds": True})
TINY_VAE = VAE_CONFIGS["tiny"]
TINY_TILING = TilingConfig(
    height=32, width=32, num_frames=16, stride_height=24, stride_width=24, stride_num_frames=12
)


def randomize(model: AnyModule, seed: int = 0, std: float = 0.05) -> AnyModule:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * std
            is_norm_weight = "norm" in name and parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(noise + 1 if is_norm_weight else noise)
    return model


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def diffusers_dit(config: DiTConfig) -> Any:
    """The independent implementation. Imported here: it takes seconds."""
    diffusers: Any = pytest.importorskip("diffusers")
    return diffusers.HunyuanVideoTransformer3DModel(**config.model_dump())


def diffusers_vae(config: VAEConfig) -> Any:
    """Framewise processing, its default even without tiling, is off."""
    diffusers: Any = pytest.importorskip("diffusers")
    model = diffusers.AutoencoderKLHunyuanVideo(**config.model_dump(exclude={"per_frame_norm"}))
    model.use_framewise_encoding = model.use_framewise_decoding = False
    return model
