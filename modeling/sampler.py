"""Text to video and image with a trained DiT: noise, denoise, decode.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from modeling.adapter import apply_adapter
from modeling.dit import VideoDiT
from modeling.final_folder import (
    freeze,
    is_diffusers_pipeline,
    read_diffusers_pipeline,
    read_final,
    read_vae,
)
from modeling.flow_matching import (
    VelocityField,
    classifier_free_guidance,
    integrate,
    sampling_sigmas,
)
from modeling.kernels.select import speed_up
from modeling.text_encoder import TextEncoder, TextEncoding, check_fingerprint
from modeling.vae import CausalVAE
from modeling.vae_tiling import TilingConfig
from schemas.base import StrictModel

SIDE_MULTIPLE = 16  # the VAE's 8 times the DiT's patch of 2
_FRAME_STEP = 4
_TILED_FROM_PIXELS = 256 * 256


class SampleRequest(StrictModel):
    """One sample. num_frames = 1 makes an image.

    `guidance` is the scale that a distilled model takes as an input. `cfg_scale` is classifier-free
    guidance against the negative prompt, which costs a second pass; None means 1 (off) for
    distilled models and 6 for the others.
    """

    prompt: str
    negative_prompt: str = ""
    height: Annotated[int, Field(gt=0)] = 256
    width: Annotated[int, Field(gt=0)] = 256
    num_frames: Annotated[int, Field(gt=0)] = 17
    seed: int = 0
    num_steps: Annotated[int, Field(gt=0)] = 50
    shift: Annotated[float, Field(gt=0)] | None = None
    method: Literal["euler", "heun"] = "euler"
    guidance: Annotated[float, Field(gt=0)] = 6.0
    cfg_scale: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.prompt.strip():
            raise ValueError("the prompt is empty")
        if self.height % SIDE_MULTIPLE or self.width % SIDE_MULTIPLE:
            raise ValueError(
                f"height and width must be multiples of {SIDE_MULTIPLE}, "
                f"got {self.height}x{self.width}"
            )
        if self.num_frames % _FRAME_STEP != 1:
            raise ValueError(f"num_frames must be 4n + 1, got {self.num_frames}")
        return self


@dataclass(frozen=True)
class Sampler:
    """The three networks that make a sample. `load` reads them; they must fit one another.

    `vae_is_untrained`: the DiT learned the latents of a VAE with random weights, so every sample
    is noise.
    """

    dit: VideoDiT
    vae: CausalVAE
    text_encoder: TextEncoder
    vae_is_untrained: bool = False

    def __post_init__(self) -> None:
        dit, vae, text = self.dit.config, self.vae.config, self.text_encoder
        for name, found, expected in (
            ("latent channels of VAE and DiT", vae.latent_channels, dit.in_channels),
            ("widths of text states and DiT", text.states_width, dit.text_embed_dim),
            ("widths of pooled text and DiT", text.pooled_width, dit.pooled_projection_dim),
        ):
            if found != expected:
                raise ValueError(f"the {name} differ: {found} and {expected}")

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        *,
        vae_folder: Path | None = None,
        lora: Path | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> "Sampler":
        """From a run's `final/` folder or a diffusers pipeline folder.

        `lora` is the folder of an adapter, which is added to the DiT (modeling/adapter.py).

        Raises:
            FileNotFoundError: no checkpoint or adapter there, or a package is missing.
            ValueError: parts that do not belong together, by fingerprint or width.

        """
        stored = dtype if lora is None else None  # an adapter is added before anything is rounded
        if is_diffusers_pipeline(checkpoint):
            dit, text_config = read_diffusers_pipeline(checkpoint, device=device, dtype=stored)
            _adapt(dit, lora, dtype)
            vae = read_vae(vae_folder or checkpoint / "vae", device=device)
            vae = speed_up(vae, torch.float32)
            return cls(freeze(dit), vae, TextEncoder(text_config, device))
        config, dit = read_final(checkpoint, device=device, dtype=stored)
        _adapt(dit, lora, dtype)
        vae = read_vae(
            vae_folder or config.find_vae_folder(),
            device=device,
            expected_fingerprint=config.vae_fingerprint,
        )
        vae = speed_up(vae, torch.float32)
        text_encoder = TextEncoder(config.text_encoder, device)
        check_fingerprint(
            text_encoder.fingerprint, config.text_encoder_fingerprint, "the text encoder"
        )
        return cls(freeze(dit), vae, text_encoder, config.vae_origin == "untrained")

    @torch.no_grad()
    def latent(
        self, request: SampleRequest, *, on_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """The latent of one sample, (1, C, T', H', W'), as the VAE decodes it (unscaled).

        The noise is drawn on the CPU, so a seed means the same noise on every device.
        """
        parameter = next(self.dit.parameters())
        shape = self.vae.config.latent_shape(request.num_frames, request.height, request.width)
        generator = torch.Generator().manual_seed(request.seed)
        noise = torch.randn((1, *shape), generator=generator).to(parameter.device)
        end = integrate(
            self._velocity(request),
            noise,
            sampling_sigmas(request.num_steps, request.shift),
            method=request.method,
            on_step=on_step,
        )
        return end / self.vae.config.scaling_factor

    @torch.no_grad()
    def frames(self, latent_BCTHW: Tensor) -> Iterator[Tensor]:
        """Decode one sample: pieces (T, H, W, 3) of uint8 on the CPU, in time order.

        Large samples are decoded in tiles, so memory follows neither length nor size.
        """
        height, width = (8 * side for side in latent_BCTHW.shape[3:])
        tiling = self.vae.tiling
        if tiling is None and height * width * latent_BCTHW.shape[2] > _TILED_FROM_PIXELS:
            self.vae.enable_tiling(TilingConfig(num_frames=16, stride_num_frames=12))
        try:
            for video_BCTHW in self.vae.iter_decode(latent_BCTHW.float()):
                levels = ((video_BCTHW[0].clamp(-1, 1) + 1) * 127.5).round()
                yield levels.to(torch.uint8).permute(1, 2, 3, 0).cpu()
        finally:
            self.vae.tiling = tiling

    def cfg_scale(self, request: SampleRequest) -> float:
        """The request's scale, or what suits the model."""
        if request.cfg_scale is not None:
            return request.cfg_scale
        return 1.0 if self.dit.config.guidance_embeds else 6.0

    def _velocity(self, request: SampleRequest) -> VelocityField:
        medium: Literal["image", "video"] = "image" if request.num_frames == 1 else "video"
        conditional = self.text_encoder([request.prompt], medium=medium)
        scale = self.cfg_scale(request)
        if scale == 1:
            return lambda x, sigma: self._predict(x, sigma, conditional, request.guidance)
        unconditional = self.text_encoder(
            [request.negative_prompt], medium=medium, allow_empty=True
        )

        def guided(x: Tensor, sigma: float) -> Tensor:
            return classifier_free_guidance(
                self._predict(x, sigma, conditional, request.guidance),
                self._predict(x, sigma, unconditional, request.guidance),
                scale,
            )

        return guided

    def _predict(self, x: Tensor, sigma: float, text: TextEncoding, guidance: float) -> Tensor:
        dtype = next(self.dit.parameters()).dtype
        batch = torch.ones(len(x), device=x.device)
        velocity: Tensor = self.dit(
            x.to(dtype),
            sigma * batch,
            text.states_BLD.to(x.device, dtype),
            text.lengths_B.cpu(),
            text.pooled_BD.to(x.device, dtype),
            guidance * batch if self.dit.config.guidance_embeds else None,
        )
        return velocity.float()


def _adapt(dit: VideoDiT, lora: Path | None, dtype: torch.dtype | None) -> None:
    if lora is not None:
        apply_adapter(dit, lora)
        dit.to(dtype)
