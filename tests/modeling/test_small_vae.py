"""The VAE that comes with the package: it loads, it is small, and it gives pictures back."""

from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.dit import DiTConfig
from modeling.final_folder import SHIPPED_VAE, FinalConfig, read_vae
from modeling.fingerprint import model_fingerprint


def _photo(name: str) -> torch.Tensor:
    """The middle 256 x 256 pixels of a photo that the VAE was not trained on: (1, 3, 1, H, W)."""
    datasets = pytest.importorskip("sklearn.datasets")
    image_HWC = np.asarray(datasets.load_sample_image(name))
    top, left = (image_HWC.shape[0] - 256) // 2, (image_HWC.shape[1] - 256) // 2
    middle = torch.from_numpy(image_HWC[top : top + 256, left : left + 256].copy())
    return middle.permute(2, 0, 1)[None, :, None].float() / 127.5 - 1


def test_the_shipped_vae_gives_unseen_photos_back() -> None:
    vae = read_vae(SHIPPED_VAE)
    for name, least_psnr_db in (("china.jpg", 21.5), ("flower.jpg", 28.5)):
        photo = _photo(name)
        with torch.no_grad():
            latent = vae.encode(photo).mode()
            decoded = vae.decode(latent).clamp(-1, 1)
        psnr_db = -10 * torch.log10((decoded - photo).square().mean() / 4)
        assert psnr_db > least_psnr_db
        scaled = latent * vae.config.scaling_factor
        assert 0.3 < float(scaled.square().mean().sqrt()) < 3  # latents of about unit size


def test_its_weights_stay_small_enough_to_ship() -> None:
    assert sum(file.stat().st_size for file in SHIPPED_VAE.iterdir()) < 15e6


def test_a_checkpoint_of_another_machine_finds_the_shipped_vae(tmp_path: Path) -> None:
    config = FinalConfig(
        model=DiTConfig(),
        vae_folder=tmp_path / "gone",
        vae_origin="shipped",
        vae_fingerprint="",
        text_encoder_fingerprint="",
    )
    assert config.find_vae_folder() == SHIPPED_VAE
    given = config.model_copy(update={"vae_origin": "given"})
    assert given.find_vae_folder() == tmp_path / "gone"
    fingerprint = model_fingerprint(read_vae(SHIPPED_VAE))
    read_vae(config.find_vae_folder(), expected_fingerprint=fingerprint)
