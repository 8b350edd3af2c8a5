"""Turns one clip and its caption into what a latent shard holds.

The networks and the draws are those of training, so a DiT sees on latent shards what it would see
on the pixels.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from modeling.caption_text import CaptionTextConfig, caption_text
from modeling.data.decode import Decoder
from modeling.data.errors import SampleError
from modeling.data.latent_format import (
    POOLED,
    STATES,
    TEXT_ENCODER,
    VAE,
    EncodedText,
    LatentSample,
)
from modeling.data.view import ViewConfig
from modeling.kernels.select import speed_up
from modeling.text_config import TextEncoderConfig
from modeling.text_encoder import TextEncoder
from modeling.train import compute
from modeling.train.encoders import find_vae, load_vae
from modeling.train.parts import to_video
from modeling.vae_tiling import TilingConfig
from schemas.base import StrictModel
from schemas.caption import StructuredCaption


class EncodeConfig(StrictModel):
    """What the bytes of latent shards follow from, besides the weights of the encoders.

    `num_texts` texts of a caption are drawn, without dropping; a caption whose texts are all the
    same gets one. "half" stores latents as fp16, which has the finer steps, and text states as
    bf16, which has the wider range. Clips of more pixels than `tile_above_pixels` (frames x height
    x width) are encoded in tiles: training on pixels never does that.
    """

    vae: str = "auto"
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    view: ViewConfig = ViewConfig()
    caption: CaptionTextConfig = CaptionTextConfig()
    seed: int = 0
    num_texts: Annotated[int, Field(ge=1)] = 4
    dtype: Literal["half", "float32"] = "half"
    precision: Literal["fp32", "bf16"] = "fp32"
    decoder: Decoder = "pyav"
    tile_above_pixels: Annotated[int, Field(ge=0)] = 65 * 512 * 512
    tiling: TilingConfig = TilingConfig()


class LatentEncoder:
    """VAE and text encoder on one device, one clip at a time: no clip depends on another."""

    def __init__(self, config: EncodeConfig, device: torch.device) -> None:
        self.config = config
        self._device = device
        self._vae, vae_fingerprint = load_vae(find_vae(config.vae), device)
        self._text_encoder = TextEncoder(config.text_encoder, device)
        self.fingerprints: Mapping[str, str] = {
            VAE: vae_fingerprint,
            TEXT_ENCODER: self._text_encoder.fingerprint,
        }
        is_half = config.dtype == "half"
        self._latent_dtype = torch.float16 if is_half else torch.float32
        self._text_dtype = torch.bfloat16 if is_half else torch.float32
        self._precision = torch.bfloat16 if config.precision == "bf16" else torch.float32
        speed_up(self._vae, self._precision)

    @torch.no_grad()
    def encode(self, key: str, pixels_CTHW: Tensor, caption: StructuredCaption) -> LatentSample:
        """Raises SampleError where a number is beyond what the stored type can hold."""
        video = to_video(pixels_CTHW[None], self._device)
        with self._tiled(video), compute.autocast(self._device, self._precision):
            posterior = self._vae.encode(video)
        return LatentSample(
            _stored(posterior.mean[0], self._latent_dtype, "mean"),
            _stored(posterior.logvar[0], self._latent_dtype, "logvar"),
            self._encode_texts(self._texts(key, caption), is_image=pixels_CTHW.shape[1] == 1),
        )

    def _texts(self, key: str, caption: StructuredCaption) -> list[str]:
        config = self.config.caption.model_copy(update={"drop_text": 0.0})
        texts = [
            caption_text(caption, config, seed=self.config.seed, key=key, step=number)
            for number in range(self.config.num_texts)
        ]
        return texts[:1] if len(set(texts)) == 1 else texts

    def _encode_texts(self, texts: list[str], *, is_image: bool) -> list[EncodedText]:
        encoded = []
        for text in texts:  # one by one: no padding, and no text depends on another
            found = self._text_encoder(
                [text], medium="image" if is_image else "video", allow_empty=True, cut_long=True
            )
            states_LD = found.states_BLD[0, : int(found.lengths_B[0])]
            states = {
                STATES: _stored(states_LD, self._text_dtype, STATES),
                POOLED: _stored(found.pooled_BD[0], self._text_dtype, POOLED),
            }
            encoded.append(EncodedText(text, states))
        return encoded

    @contextmanager
    def _tiled(self, video_BCTHW: Tensor) -> Iterator[None]:
        before = self._vae.tiling
        if video_BCTHW[0, 0].numel() > self.config.tile_above_pixels:
            self._vae.enable_tiling(self.config.tiling)
        try:
            yield
        finally:
            self._vae.tiling = before


def _stored(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    stored = tensor.to(dtype).cpu()
    if not torch.isfinite(stored).all():
        raise SampleError(f"its {name} has numbers that {dtype} cannot hold")
    return stored
