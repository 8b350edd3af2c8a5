"""The causal 3D VAE of HunyuanVideo (arXiv:2412.03603, section 4.1): video in, latents out.

(T + 1) x H x W x 3 in [-1, 1] becomes (T/4 + 1) x H/8 x W/8 x 16; an image is a clip of one
frame. Attribute names give the keys of the released checkpoint.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from modeling.causal_conv import CausalConv3d
from modeling.finite import check_finite
from modeling.gaussian import DiagonalGaussian as DiagonalGaussian
from modeling.vae_config import VAE_CONFIGS as VAE_CONFIGS
from modeling.vae_config import VAEConfig as VAEConfig
from modeling.vae_layers import DownBlock, MidBlock, NormFactory, UpBlock, run_layers
from modeling.vae_tiling import TilingConfig, decode_plan, encode_plan, iter_tiled, tiled


class Encoder(nn.Module):
    """Video to moments, before `quant_conv`."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        channels = config.block_out_channels
        norm = NormFactory(config.norm_num_groups, per_frame=config.per_frame_norm)
        self.gradient_checkpointing = False
        self.conv_in = CausalConv3d(config.in_channels, channels[0])
        self.down_blocks = nn.ModuleList(
            DownBlock(
                channels[max(level - 1, 0)],
                channels[level],
                config.layers_per_block,
                config.stride_of_level(level),
                norm,
            )
            for level in range(len(channels))
        )
        self.mid_block = MidBlock(channels[-1], norm, attention=config.mid_block_add_attention)
        self.conv_norm_out = norm(channels[-1])
        self.conv_out = CausalConv3d(channels[-1], 2 * config.latent_channels)

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        blocks = cast("list[DownBlock | MidBlock]", [*self.down_blocks, self.mid_block])
        layers = [layer for block in blocks for layer in block.layers()]
        h_BCTHW = self.conv_in(video_BCTHW)
        h_BCTHW = run_layers(layers, h_BCTHW, checkpointing=self.gradient_checkpointing)
        return self.conv_out.of_normed(self.conv_norm_out, h_BCTHW)


class Decoder(nn.Module):
    """Latent to video, after `post_quant_conv`. The output is not clamped."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        channels = config.block_out_channels[::-1]
        norm = NormFactory(config.norm_num_groups, per_frame=config.per_frame_norm)
        self.gradient_checkpointing = False
        self.conv_in = CausalConv3d(config.latent_channels, channels[0])
        self.mid_block = MidBlock(channels[0], norm, attention=config.mid_block_add_attention)
        self.up_blocks = nn.ModuleList(
            UpBlock(
                channels[max(level - 1, 0)],
                channels[level],
                config.layers_per_block + 1,
                config.stride_of_level(level),
                norm,
            )
            for level in range(len(channels))
        )
        self.conv_norm_out = norm(channels[-1])
        self.conv_out = CausalConv3d(channels[-1], config.out_channels)

    def forward(self, latent_BCTHW: Tensor) -> Tensor:
        blocks = cast("list[UpBlock | MidBlock]", [self.mid_block, *self.up_blocks])
        layers = [layer for block in blocks for layer in block.layers()]
        h_BCTHW = self.conv_in(latent_BCTHW)
        h_BCTHW = run_layers(layers, h_BCTHW, checkpointing=self.gradient_checkpointing)
        return self.conv_out.of_normed(self.conv_norm_out, h_BCTHW)


class CausalVAE(nn.Module):
    """encode: video in [-1, 1] to a posterior; decode: latent to video.

    Neither applies `config.scaling_factor`. Tiling is off until `enable_tiling`.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.tiling: TilingConfig | None = None
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv3d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv3d(config.latent_channels, config.latent_channels, 1)

    def encode(self, video_BCTHW: Tensor) -> DiagonalGaussian:
        """The posterior over (B, latent_channels, 1 + (T - 1) / 4, H / 8, W / 8).

        Raises:
            ValueError: wrong rank, channels, frames or sides, or a value that is not finite.

        """
        self._check_video(video_BCTHW)
        if self.tiling is None:
            return DiagonalGaussian.from_moments(self._encode_tile(video_BCTHW))
        plan = encode_plan(self.tiling, **self._ratios())
        return DiagonalGaussian.from_moments(tiled(self._encode_tile, video_BCTHW, plan))

    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        """Video (B, out_channels, 1 + 4 * (T - 1), 8 * H, 8 * W), near [-1, 1], not clamped.

        Raises:
            ValueError: wrong rank or channels, or a value that is not finite.

        """
        return torch.cat(list(self.iter_decode(latent_BCTHW)), dim=2)

    def iter_decode(self, latent_BCTHW: Tensor) -> Iterator[Tensor]:
        """The pieces of `decode`, in time order: memory does not grow with the length."""
        self._check_latent(latent_BCTHW)
        if self.tiling is None:
            yield self._decode_tile(latent_BCTHW)
            return
        plan = decode_plan(self.tiling, **self._ratios())
        yield from iter_tiled(self._decode_tile, latent_BCTHW, plan)

    def forward(
        self, video_BCTHW: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, DiagonalGaussian]:
        """Reconstruct through a sampled latent, as in training."""
        posterior = self.encode(video_BCTHW)
        return self.decode(posterior.sample(generator)), posterior

    def enable_tiling(self, tiling: TilingConfig | None = None) -> None:
        """Cut larger inputs into tiles from now on; without an argument, the released sizes."""
        tiling = tiling or TilingConfig()
        tiling.check_multiples(**self._ratios())
        self.tiling = tiling

    def disable_tiling(self) -> None:
        self.tiling = None

    @contextmanager
    def tiling_dropout(
        self, tiling: TilingConfig, probability: float, generator: torch.Generator
    ) -> Iterator[bool]:
        """Within the block tiling is on with this probability, else off. Yields which.

        The paper's last training phase does so, that the network learns to be cut; it does not
        give the probability.
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"tiling probability must lie in [0, 1], got {probability}")
        before = self.tiling
        draw = torch.rand((), generator=generator, device=generator.device).item()
        self.disable_tiling()
        if draw < probability:
            self.enable_tiling(tiling)
        try:
            yield self.tiling is not None
        finally:
            self.tiling = before

    def causal_convolutions(self) -> Iterator[CausalConv3d]:
        """Whoever holds the operations that a pass is made of (modeling/vae_operations.py)."""
        return (module for module in self.modules() if isinstance(module, CausalConv3d))

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Keep only the inputs of the layers and recompute the rest in the backward pass."""
        self.encoder.gradient_checkpointing = enabled
        self.decoder.gradient_checkpointing = enabled

    def _encode_tile(self, video_BCTHW: Tensor) -> Tensor:
        return cast(Tensor, self.quant_conv(self.encoder(video_BCTHW)))

    def _decode_tile(self, latent_BCTHW: Tensor) -> Tensor:
        return cast(Tensor, self.decoder(self.post_quant_conv(latent_BCTHW)))

    def _ratios(self) -> dict[str, int]:
        return {
            "spatial": self.config.spatial_compression_ratio,
            "temporal": self.config.temporal_compression_ratio,
        }

    def _check_video(self, video_BCTHW: Tensor) -> None:
        if video_BCTHW.ndim != 5 or video_BCTHW.shape[1] != self.config.in_channels:
            raise ValueError(
                f"video must be (B, {self.config.in_channels}, T, H, W), "
                f"got {tuple(video_BCTHW.shape)}"
            )
        self.config.latent_shape(*video_BCTHW.shape[2:])
        check_finite(video_BCTHW, "video")

    def _check_latent(self, latent_BCTHW: Tensor) -> None:
        if latent_BCTHW.ndim != 5 or latent_BCTHW.shape[1] != self.config.latent_channels:
            raise ValueError(
                f"latent must be (B, {self.config.latent_channels}, T, H, W), "
                f"got {tuple(latent_BCTHW.shape)}"
            )
        check_finite(latent_BCTHW, "latent")
