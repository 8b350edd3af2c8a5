"""Against diffusers' implementation, with random weights in every tensor."""

from typing import Any

import pytest
import torch

from modeling.vae import CausalVAE, VAEConfig
from tests.modeling.random_networks import TINY_TILING, TINY_VAE, diffusers_vae, draw, randomize

DEEPER = TINY_VAE.model_copy(update={"layers_per_block": 2, "block_out_channels": (8, 8, 16, 24)})
WITHOUT_ATTENTION = TINY_VAE.model_copy(update={"mid_block_add_attention": False})


def pair(config: VAEConfig, dtype: torch.dtype) -> tuple[CausalVAE, Any]:
    ours = randomize(CausalVAE(config), std=0.1).to(dtype)
    theirs = diffusers_vae(config).to(dtype)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("config", [TINY_VAE, DEEPER, WITHOUT_ATTENTION])
@pytest.mark.parametrize("size", [(1, 16, 24), (9, 16, 24)])
def test_moments_and_video_are_equal(config: VAEConfig, size: tuple[int, int, int]) -> None:
    ours, theirs = pair(config, torch.float64)
    video = draw(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        posterior, expected = ours.encode(video), theirs.encode(video).latent_dist
        assert posterior.mean.shape == (2, *config.latent_shape(*size))
        torch.testing.assert_close(posterior.mean, expected.mean, atol=1e-10, rtol=0)
        torch.testing.assert_close(posterior.logvar, expected.logvar, atol=1e-10, rtol=0)
        decoded, expected_video = ours.decode(posterior.mode()), theirs.decode(expected.mean).sample
        assert decoded.shape == video.shape
        torch.testing.assert_close(decoded, expected_video, atol=1e-10, rtol=0)


def test_single_precision_stays_close() -> None:
    ours, theirs = pair(TINY_VAE, torch.float32)
    video = draw(2, 3, 9, 16, 24)
    with torch.no_grad():
        posterior, expected = ours.encode(video), theirs.encode(video).latent_dist
        torch.testing.assert_close(posterior.mean, expected.mean, atol=1e-5, rtol=0)
        torch.testing.assert_close(posterior.logvar, expected.logvar, atol=1e-5, rtol=0)
        decoded = ours.decode(expected.mean)
        torch.testing.assert_close(decoded, theirs.decode(expected.mean).sample, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tiled", [False, True])
def test_gradients_are_equal(tiled: bool) -> None:
    ours, theirs = pair(TINY_VAE, torch.float64)
    size = (9, 16, 24)
    if tiled:
        size = (21, 16, 40)
        ours.enable_tiling(TINY_TILING)
        theirs.use_framewise_encoding = theirs.use_framewise_decoding = True
        theirs.enable_tiling(32, 32, 16, 24, 24, 12)
    video = draw(1, 3, *size, dtype=torch.float64)
    weight = draw(1, 3, *size, seed=1, dtype=torch.float64)
    (ours.decode(ours.encode(video).mode()) * weight).sum().backward()  # type: ignore[no-untyped-call]
    (theirs.decode(theirs.encode(video).latent_dist.mode()).sample * weight).sum().backward()
    expected = dict(theirs.named_parameters())
    difference = norm = 0.0
    for name, parameter in ours.named_parameters():
        if name.endswith("to_k.bias"):
            continue  # Softmax does not change under a shift: the true gradient is zero.
        assert parameter.grad is not None, name
        difference += float((parameter.grad - expected[name].grad).square().sum())
        norm += float(expected[name].grad.square().sum())
    assert norm > 0
    assert (difference / norm) ** 0.5 < 1e-7


@pytest.mark.parametrize("size", [(21, 40, 24), (5, 40, 64), (37, 16, 16)])
def test_tiles_are_equal(size: tuple[int, int, int]) -> None:
    ours, theirs = pair(TINY_VAE, torch.float32)
    ours.enable_tiling(TINY_TILING)
    theirs.use_framewise_encoding = theirs.use_framewise_decoding = True
    theirs.enable_tiling(32, 32, 16, 24, 24, 12)
    video = draw(1, 3, *size)
    with torch.no_grad():
        posterior, expected = ours.encode(video), theirs.encode(video).latent_dist
        torch.testing.assert_close(posterior.mean, expected.mean, atol=1e-4, rtol=0)
        torch.testing.assert_close(posterior.logvar, expected.logvar, atol=1e-4, rtol=0)
        decoded = ours.decode(expected.mean)
        torch.testing.assert_close(decoded, theirs.decode(expected.mean).sample, atol=1e-4, rtol=0)


def test_kl_is_summed_over_every_dimension_but_the_batch() -> None:
    """diffusers' own sum leaves the last dimension of a video posterior."""
    ours, theirs = pair(TINY_VAE, torch.float64)
    video = draw(2, 3, 5, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        kl = ours.encode(video).kl()
        expected = theirs.encode(video).latent_dist.kl()
    assert kl.shape == (2,)
    torch.testing.assert_close(kl, expected.sum(dim=-1))
