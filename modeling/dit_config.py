"""The configuration of the video diffusion transformer and its named sizes.

Field names and meanings are those of diffusers' `HunyuanVideoTransformer3DModel`, so a
config.json goes in and out unchanged.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import StrictModel

Positive = Annotated[int, Field(gt=0)]


class DiTConfig(StrictModel):
    """The defaults are the released, guidance-distilled HunyuanVideo."""

    in_channels: Positive = 16
    out_channels: Positive = 16
    num_attention_heads: Positive = 24
    attention_head_dim: Positive = 128
    num_layers: Annotated[int, Field(ge=0)] = 20
    """Dual-stream blocks: image and text tokens have their own weights, attention is joint."""
    num_single_layers: Annotated[int, Field(ge=0)] = 40
    """Single-stream blocks: one set of weights for all tokens, MLP parallel to attention."""
    num_refiner_layers: Annotated[int, Field(ge=0)] = 2
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    patch_size: Positive = 2
    patch_size_t: Positive = 1
    qk_norm: Literal["rms_norm"] = "rms_norm"
    guidance_embeds: bool = True
    """Whether the guidance scale is an input (a distilled model) or not (an undistilled one)."""
    text_embed_dim: Positive = 4096
    pooled_projection_dim: Positive = 768
    rope_theta: Annotated[float, Field(gt=0)] = 256.0
    rope_axes_dim: tuple[Positive, Positive, Positive] = (16, 56, 56)
    """Channels of a head that turn with the position in time, height and width."""
    image_condition_type: None = None
    """Image-to-video conditioning; not built, so only null is accepted."""

    @model_validator(mode="after")
    def _check_rope(self) -> Self:
        if sum(self.rope_axes_dim) != self.attention_head_dim:
            raise ValueError(
                f"rope_axes_dim must sum to attention_head_dim, "
                f"got {self.rope_axes_dim} and {self.attention_head_dim}"
            )
        if any(dim % 2 for dim in self.rope_axes_dim):
            raise ValueError(f"every entry of rope_axes_dim must be even, got {self.rope_axes_dim}")
        return self

    @property
    def hidden_size(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def mlp_size(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def patch(self) -> tuple[int, int, int]:
        """Latent cells of a token along T, H, W."""
        return (self.patch_size_t, self.patch_size, self.patch_size)

    def grid(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Tokens along T, H, W of a latent of this size.

        Raises:
            ValueError: if the latent is not a whole number of patches.

        """
        latent_THW = (num_frames, height, width)
        pairs = list(zip(latent_THW, self.patch, strict=True))
        if any(size < 1 or size % patch for size, patch in pairs):
            raise ValueError(
                f"latent frames, height and width must be positive multiples of "
                f"{self.patch}, got {latent_THW}"
            )
        t, h, w = (size // patch for size, patch in pairs)
        return t, h, w


def _sized(num_heads: int, num_layers: int) -> DiTConfig:
    """The released proportions at another size: one dual-stream block to two single-stream ones.

    The depths are ours; only the full size is published. Without guidance embedding, because
    these are for training from scratch.
    """
    return DiTConfig(
        num_attention_heads=num_heads,
        num_layers=num_layers,
        num_single_layers=2 * num_layers,
        guidance_embeds=False,
    )


DIT_CONFIGS: dict[str, DiTConfig] = {
    # CPU seconds: tests and demonstrations.
    "tiny": DiTConfig(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_single_layers=3,
        guidance_embeds=False,
        text_embed_dim=24,
        pooled_projection_dim=12,
        rope_axes_dim=(4, 6, 6),
    ),
    "50m": _sized(num_heads=3, num_layers=4),
    "340m": _sized(num_heads=6, num_layers=8),
    "1.3b": _sized(num_heads=12, num_layers=8),
    "hunyuan": DiTConfig(),
    "hunyuan-undistilled": DiTConfig(guidance_embeds=False),
}
