"""The folder that a training run ends with, `OUT/final/`, and that sampling starts from.

    config.json          FinalConfig: model, VAE and text encoder, with their fingerprints
    model.safetensors    weights, original key layout
    ema.safetensors      averaged weights (used for sampling when there)
    diffusers/           the same weights (averaged if there) for diffusers' from_pretrained
    adapter/             of a LoRA run: what it adds to its base (modeling/adapter.py); the weights
                         above have it added already

A diffusers pipeline folder (transformer/, vae/, text_encoder/, ...) can be sampled from as well.
"""

from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import nn

from modeling.dit import DiTConfig, VideoDiT
from modeling.fingerprint import model_fingerprint
from modeling.flow_matching import FlowConfig
from modeling.interop import from_diffusers, from_original, to_diffusers, to_original
from modeling.text_config import RELEASED_CROP_START, RELEASED_TEMPLATE, TextEncoderConfig
from modeling.vae import CausalVAE
from schemas.base import StrictModel

Network = TypeVar("Network", bound=nn.Module)

SHIPPED_VAE = Path(__file__).parent / "weights" / "small_vae"
CONFIG_FILE = "config.json"
ADAPTER = "adapter"
_WEIGHTS_FILE, _EMA_FILE = "model.safetensors", "ema.safetensors"


class FinalConfig(StrictModel):
    """Everything that sampling must know besides the weights.

    `vae_folder` is where the VAE lay in training (diffusers layout); `--vae` names another place.
    The fingerprints decide whether what is found there is the same. `vae_origin` "untrained" says
    that its weights are random: such a run tries the machinery out and can learn nothing to see.
    """

    kind: Literal["dit"] = "dit"
    model: DiTConfig
    flow: FlowConfig = FlowConfig()
    vae_folder: Path
    vae_origin: Literal["given", "shipped", "untrained"] = "given"
    vae_fingerprint: str
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    text_encoder_fingerprint: str
    data_manifests: tuple[str, ...] = ()  # sha256 of the manifests trained on
    step: int = 0

    def find_vae_folder(self) -> Path:
        """Where the VAE lies now: a shipped one is found again wherever this package is."""
        if self.vae_origin == "shipped" and not self.vae_folder.is_dir():
            return SHIPPED_VAE
        return self.vae_folder


def write_final(
    folder: Path, config: FinalConfig, model: VideoDiT, ema: VideoDiT | None = None
) -> None:
    """Write the whole folder; config.json comes last, so a folder that has it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    to_original(model, folder / _WEIGHTS_FILE)
    if ema is not None:
        to_original(ema, folder / _EMA_FILE)
    to_diffusers(ema or model, folder / "diffusers")
    (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n")


def read_final(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[FinalConfig, VideoDiT]:
    """The configuration and the averaged model if there is one, else the model.

    Raises:
        FileNotFoundError: no config.json, or no weights.
        ValueError: tensors that do not fit the configuration.

    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint: it has no {CONFIG_FILE}")
    config = FinalConfig.model_validate_json(file.read_text())
    weights = folder / _EMA_FILE
    if not weights.exists():
        weights = folder / _WEIGHTS_FILE
    model = from_original(weights, config.model, device=device, dtype=dtype)
    assert isinstance(model, VideoDiT)
    return config, model


def is_diffusers_pipeline(folder: Path) -> bool:
    """Whether the folder holds a pipeline as diffusers saves it."""
    return (folder / "transformer" / "config.json").is_file()


def read_diffusers_pipeline(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[VideoDiT, TextEncoderConfig]:
    """The DiT of a pipeline folder, and its text encoders with the released template."""
    model = from_diffusers(folder / "transformer", device=device, dtype=dtype)
    if not isinstance(model, VideoDiT):
        raise ValueError(f"{folder / 'transformer'} holds a {type(model).__name__}, not a DiT")
    text = TextEncoderConfig(
        states=str(folder / "text_encoder"),
        pooled=str(folder / "text_encoder_2"),
        template=RELEASED_TEMPLATE,
        crop_start=RELEASED_CROP_START,
    )
    return model, text


def read_vae(
    folder: Path, *, device: torch.device | str = "cpu", expected_fingerprint: str | None = None
) -> CausalVAE:
    """The VAE of a diffusers-layout folder, in float32, frozen.

    Raises:
        ValueError: another kind of network, or another VAE than the expected one.

    """
    vae = from_diffusers(folder, device=device, dtype=torch.float32)
    if not isinstance(vae, CausalVAE):
        raise ValueError(f"{folder} holds a {type(vae).__name__}, not a VAE")
    if expected_fingerprint is not None:
        found = model_fingerprint(vae)
        if found != expected_fingerprint:
            raise ValueError(
                f"the VAE in {folder} has fingerprint {found}, but the latents were made with "
                f"{expected_fingerprint}"
            )
    return freeze(vae)


def freeze(network: Network) -> Network:
    """In evaluation mode and without gradients."""
    return network.eval().requires_grad_(requires_grad=False)
