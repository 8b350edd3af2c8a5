"""The frozen networks that a DiT is trained behind: the VAE, and the text encoder."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from modeling.final_folder import SHIPPED_VAE, freeze, read_vae
from modeling.fingerprint import model_fingerprint
from modeling.interop import read_diffusers_config, to_diffusers
from modeling.train.errors import ConfigError
from modeling.vae import VAE_CONFIGS, CausalVAE, VAEConfig

logger = logging.getLogger(__name__)

Origin = Literal["given", "shipped", "untrained"]

UNTRAINED_WARNING = (
    "NO VAE WEIGHTS: latents come from an UNTRAINED tiny VAE with random weights. The run shows "
    "that everything works; its samples will be noise. Give --vae FOLDER for a real one."
)
_SEED = 0


@dataclass(frozen=True)
class VaeSource:
    """Which VAE a DiT gets. `folder` is None for the untrained one."""

    origin: Origin
    folder: Path | None
    config: VAEConfig


def find_vae(setting: str) -> VaeSource:
    """What `dit.vae` means, without reading weights. Raises ConfigError."""
    has_shipped = (SHIPPED_VAE / "config.json").is_file()
    if setting == "auto":
        setting = "shipped" if has_shipped else "untrained"
    if setting == "untrained":
        return VaeSource("untrained", None, VAE_CONFIGS["tiny"])
    if setting == "shipped" and not has_shipped:
        raise ConfigError(f"dit.vae = 'shipped': no VAE came along in {SHIPPED_VAE}")
    folder = SHIPPED_VAE if setting == "shipped" else _diffusers_folder(Path(setting))
    try:
        _, config = read_diffusers_config(folder)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"dit.vae = {setting!r}: {error}") from error
    if not isinstance(config, VAEConfig):
        raise ConfigError(f"dit.vae = {setting!r} holds a DiT, not a VAE")
    return VaeSource("shipped" if setting == "shipped" else "given", folder, config)


def load_vae(source: VaeSource, device: torch.device) -> tuple[CausalVAE, str]:
    """The frozen VAE on the device, and its fingerprint."""
    if source.folder is None:
        logger.warning(UNTRAINED_WARNING)
        vae = untrained_vae(source.config)
    else:
        vae = read_vae(source.folder)
    return freeze(vae).to(device), model_fingerprint(vae)


def keep_untrained(vae: CausalVAE, folder: Path) -> Path:
    """Write the untrained VAE where sampling can find it again."""
    to_diffusers(vae, folder)
    return folder


def untrained_vae(config: VAEConfig) -> CausalVAE:
    """Random weights, the same every time, latents scaled to a mean square of one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        vae = CausalVAE(config).eval()
        with torch.no_grad():
            posterior = vae.encode(torch.rand(2, config.in_channels, 5, 64, 64) * 2 - 1)
    mean_square = posterior.mean.square().mean() + posterior.logvar.exp().mean()
    scaling_factor = round(1 / float(mean_square.sqrt()), 6)
    vae.config = config.model_copy(update={"scaling_factor": scaling_factor})
    return vae


def _diffusers_folder(folder: Path) -> Path:
    """A run's folder, its final/, or the diffusers folder itself."""
    for place in (folder, folder / "diffusers", folder / "final" / "diffusers"):
        if (place / "config.json").is_file() and _has_class(place):
            return place.resolve()
    return folder


def _has_class(folder: Path) -> bool:
    return '"_class_name"' in (folder / "config.json").read_text()
