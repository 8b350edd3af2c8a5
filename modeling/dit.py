"""The video diffusion transformer of HunyuanVideo (arXiv:2412.03603, section 4.2).

Dual-stream blocks, then single-stream blocks, full attention over image and text tokens; one
network for images (T = 1) and video. Predicts the velocity of `modeling.flow_matching`.

Shape suffixes: B batch, C channels, T frames, H height, W width, L text tokens, D width,
N image tokens.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, noop_context_fn

from modeling.attention import Attention
from modeling.dit_config import DIT_CONFIGS as DIT_CONFIGS
from modeling.dit_config import DiTConfig as DiTConfig
from modeling.dit_layers import (
    DoubleBlock,
    FinalLayer,
    Modulation,
    PatchEmbedder,
    ScalarEmbedder,
    SingleBlock,
    VectorEmbedder,
)
from modeling.finite import check_finite
from modeling.rope import rope_table
from modeling.token_refiner import TokenRefiner

# The networks' time and guidance inputs count in thousandths, as in the released model.
_EMBEDDING_SCALE = 1000.0

Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


class VideoDiT(nn.Module):
    """See `forward`. A fresh network's output is exactly 0."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self._recomputation: Callable[[], Contexts] = noop_context_fn
        width = config.hidden_size
        self.img_in = PatchEmbedder(config)
        self.txt_in = TokenRefiner(config)
        self.time_in = ScalarEmbedder(width)
        self.vector_in = VectorEmbedder(config.pooled_projection_dim, width)
        self.guidance_in = ScalarEmbedder(width) if config.guidance_embeds else None
        self.double_blocks = nn.ModuleList(DoubleBlock(config) for _ in range(config.num_layers))
        self.single_blocks = nn.ModuleList(
            SingleBlock(config) for _ in range(config.num_single_layers)
        )
        self.final_layer = FinalLayer(config)
        self.init_weights()

    def forward(
        self,
        latent_BCTHW: Tensor,
        sigma_B: Tensor,
        text_BLD: Tensor,
        text_lengths_B: Tensor,
        pooled_BD: Tensor,
        guidance_B: Tensor | None = None,
    ) -> Tensor:
        """The velocity, of the latent's shape.

        Args:
            latent_BCTHW: noisy latent, already multiplied by the VAE's scaling factor.
            sigma_B: noise level in [0, 1]; keep it in fp32.
            text_BLD: token states of the prompt, valid tokens first.
            text_lengths_B: valid tokens of each row, at least 1. On the CPU it costs no
                synchronization. Rows of equal length use no mask.
            pooled_BD: one vector per prompt.
            guidance_B: guidance scale (6.0 means 6.0); exactly if the config embeds it.

        Raises:
            ValueError: shapes or lengths that do not fit; outside training also a latent that is
                not finite or a sigma outside [0, 1].

        """
        lengths = self._check_inputs(
            latent_BCTHW, sigma_B, text_BLD, text_lengths_B, pooled_BD, guidance_B
        )
        grid_THW = self.config.grid(*latent_BCTHW.shape[2:])
        text_BLD = text_BLD[:, : max(lengths)]
        num_text_B = None
        if min(lengths) != max(lengths):
            num_text_B = text_lengths_B.to(latent_BCTHW.device)

        timestep_B = sigma_B.float() * _EMBEDDING_SCALE
        vec_BD = self.time_in(timestep_B) + self.vector_in(pooled_BD)
        if self.guidance_in is not None and guidance_B is not None:
            vec_BD = vec_BD + self.guidance_in(guidance_B.float() * _EMBEDDING_SCALE)
        image_BND = self.img_in(latent_BCTHW)
        text_BLD = self.txt_in(text_BLD, timestep_B, num_text_B)
        rope = rope_table(
            grid_THW,
            self.config.rope_axes_dim,
            theta=self.config.rope_theta,
            device=latent_BCTHW.device,
        )
        num_image = image_BND.shape[1]
        num_valid_B = None if num_text_B is None else num_text_B + num_image

        for block in self.double_blocks:
            image_BND, text_BLD = self._run(block, image_BND, text_BLD, vec_BD, rope, num_valid_B)
        x_BND = torch.cat([image_BND, text_BLD], dim=1)
        for block in self.single_blocks:
            x_BND = self._run(block, x_BND, vec_BD, rope, num_valid_B)
        return cast(Tensor, self.final_layer(x_BND[:, :num_image], vec_BD, grid_THW))

    def set_gradient_checkpointing(
        self, enabled: bool, recomputation: Callable[[], Contexts] = noop_context_fn
    ) -> None:
        """Keep only the inputs of the blocks and recompute the rest in the backward pass.

        `recomputation` makes the contexts of `torch.utils.checkpoint`: which other results to keep.
        """
        self.gradient_checkpointing = enabled
        self._recomputation = recomputation

    def set_attention(self, attention: Attention) -> None:
        """Give every block another attention, such as one that spans several devices."""
        for block in [*self.double_blocks, *self.single_blocks]:
            cast("DoubleBlock | SingleBlock", block).attention = attention

    @torch.no_grad()
    def init_weights(self) -> None:
        """Xavier for layers, normal(0.02) for embedders of numbers, zero for gates and output.

        The zeros and the embedders' values are the released code's; the rest is ours. Call it
        after moving a network off the meta device.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv3d):
                nn.init.xavier_uniform_(module.weight.flatten(1))
                cast(Tensor, module.bias).zero_()
            elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, ScalarEmbedder):
                for layer in (module.mlp[0], module.mlp[2]):
                    nn.init.normal_(cast(nn.Linear, layer).weight, std=0.02)
            elif isinstance(module, Modulation):
                module.linear.weight.zero_()
        for name, parameter in self.named_parameters():
            if "adaLN_modulation" in name or name.startswith("final_layer.linear"):
                parameter.zero_()

    def _run(self, block: nn.Module, *args: object) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            again = self._recomputation
            return cast(Tensor, checkpoint(block, *args, use_reentrant=False, context_fn=again))
        return cast(Tensor, block(*args))

    def _check_inputs(
        self,
        latent_BCTHW: Tensor,
        sigma_B: Tensor,
        text_BLD: Tensor,
        text_lengths_B: Tensor,
        pooled_BD: Tensor,
        guidance_B: Tensor | None,
    ) -> list[int]:
        """Raise ValueError for what does not fit; return the text lengths as numbers."""
        config = self.config
        if latent_BCTHW.ndim != 5 or latent_BCTHW.shape[1] != config.in_channels:
            raise ValueError(
                f"latent must be (B, {config.in_channels}, T, H, W), "
                f"got {tuple(latent_BCTHW.shape)}"
            )
        b = latent_BCTHW.shape[0]
        num_tokens = text_BLD.shape[1] if text_BLD.ndim > 1 else 0
        expected = {
            "sigma": (sigma_B, (b,)),
            "text": (text_BLD, (b, num_tokens, config.text_embed_dim)),
            "text_lengths": (text_lengths_B, (b,)),
            "pooled": (pooled_BD, (b, config.pooled_projection_dim)),
        }
        if guidance_B is not None:
            expected["guidance"] = (guidance_B, (b,))
        for name, (tensor, shape) in expected.items():
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
        if (guidance_B is not None) != config.guidance_embeds:
            given = "given" if guidance_B is not None else "missing"
            raise ValueError(
                f"guidance is {given}, but the config says guidance_embeds={config.guidance_embeds}"
            )
        if text_lengths_B.is_meta:
            return [num_tokens] * b
        lengths = [int(length) for length in text_lengths_B.tolist()]
        if min(lengths) < 1 or max(lengths) > num_tokens:
            raise ValueError(f"text lengths must lie in [1, {num_tokens}], got {lengths}")
        if not self.training:
            check_finite(latent_BCTHW, "latent")
            if not sigma_B.is_meta and not bool(((sigma_B >= 0) & (sigma_B <= 1)).all()):
                raise ValueError(f"sigma must lie in [0, 1], got {sigma_B.tolist()}")
        return lengths
