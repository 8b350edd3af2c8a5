"""The configuration of the causal VAE and its named sizes.

Field names and meanings are those of diffusers' `AutoencoderKLHunyuanVideo`, so a config.json
goes in and out unchanged; `per_frame_norm` is ours. `VAEConfig` is the only place that knows
how many latent frames a clip has.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import StrictModel

Positive = Annotated[int, Field(gt=0)]


class VAEConfig(StrictModel):
    """The defaults are the released HunyuanVideo VAE ("884-16c")."""

    in_channels: Positive = 3
    out_channels: Positive = 3
    latent_channels: Positive = 16
    block_out_channels: Annotated[tuple[Positive, ...], Field(min_length=1)] = (128, 256, 512, 512)
    """Channels per resolution level, finest first; the decoder uses them in reverse."""
    layers_per_block: Positive = 2
    """Residual blocks per encoder level; the decoder has one more."""
    act_fn: Literal["silu"] = "silu"
    norm_num_groups: Positive = 32
    scaling_factor: Annotated[float, Field(gt=0)] = 0.476986
    """The diffusion model works on `latent * scaling_factor`; encode and decode do not apply it."""
    spatial_compression_ratio: Positive = 8
    temporal_compression_ratio: Positive = 4
    mid_block_add_attention: bool = True
    per_frame_norm: bool = False
    """Normalize each frame on its own. The released model does not: its group norm also runs over
    time, so late frames change early latents. With this option the network is strictly causal."""

    @model_validator(mode="after")
    def _check_structure(self) -> Self:
        num_levels = len(self.block_out_channels)
        for name in ("spatial_compression_ratio", "temporal_compression_ratio"):
            ratio = getattr(self, name)
            if ratio & (ratio - 1) or ratio.bit_length() > num_levels:
                raise ValueError(
                    f"{name} must be a power of two up to {2 ** (num_levels - 1)} "
                    f"for {num_levels} levels, got {ratio}"
                )
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(
                    f"norm_num_groups must divide every level, "
                    f"got {self.norm_num_groups} and {self.block_out_channels}"
                )
        return self

    def stride_of_level(self, level: int) -> tuple[int, int, int]:
        """(T, H, W) factor of the resampling after a level: space first, time in the last ones."""
        last = len(self.block_out_channels) - 1
        halves_space = level < self.spatial_compression_ratio.bit_length() - 1
        temporal_levels = self.temporal_compression_ratio.bit_length() - 1
        halves_time = last - temporal_levels <= level < last
        space = 2 if halves_space else 1
        return (2 if halves_time else 1, space, space)

    def latent_num_frames(self, num_frames: int) -> int:
        """Latent frames of a clip of 1 + n * temporal_compression_ratio frames.

        Raises:
            ValueError: for any other number of frames.

        """
        n, rest = divmod(num_frames - 1, self.temporal_compression_ratio)
        if num_frames < 1 or rest:
            raise ValueError(
                f"the number of frames must be 1 + a multiple of "
                f"{self.temporal_compression_ratio}, got {num_frames}"
            )
        return 1 + n

    def sample_num_frames(self, latent_num_frames: int) -> int:
        """Frames that so many latent frames decode to."""
        return 1 + (latent_num_frames - 1) * self.temporal_compression_ratio

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(channels, frames, height, width) of the latent of a clip.

        Raises:
            ValueError: if the frames are not 1 + 4n, or a side is not a multiple of 8 (for the
                released ratios).

        """
        ratio = self.spatial_compression_ratio
        if height < 1 or width < 1 or height % ratio or width % ratio:
            raise ValueError(
                f"height and width must be positive multiples of {ratio}, got {height}x{width}"
            )
        frames = self.latent_num_frames(num_frames)
        return (self.latent_channels, frames, height // ratio, width // ratio)


VAE_CONFIGS: dict[str, VAEConfig] = {
    # CPU seconds: tests and demonstrations.
    "tiny": VAEConfig(
        latent_channels=4,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
    ),
    # That of the shipped weights (modeling/weights/small_vae): trained on one GPU within minutes.
    # With one group a norm, a pair of constant channels can fix its scale.
    "small": VAEConfig(
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=1,
        norm_num_groups=1,
        mid_block_add_attention=False,
    ),
    "hunyuan": VAEConfig(),
}
