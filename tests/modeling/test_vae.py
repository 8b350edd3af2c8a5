import pytest
import torch
from torch import Tensor, nn

from modeling.causal_conv import CausalConv3d
from modeling.gaussian import DiagonalGaussian
from modeling.vae import VAE_CONFIGS, CausalVAE, VAEConfig
from modeling.vae_layers import frame_causal_attention
from modeling.vae_operations import pad_by_copies, pad_with_edges
from tests.modeling.random_networks import TINY_TILING, TINY_VAE, draw, randomize

STRICT = TINY_VAE.model_copy(update={"per_frame_norm": True})


def without_norms(vae: CausalVAE) -> CausalVAE:
    for module in list(vae.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    return vae


def causal_networks() -> list[CausalVAE]:
    return [randomize(without_norms(CausalVAE(TINY_VAE))), randomize(CausalVAE(STRICT))]


@pytest.mark.parametrize(
    ("name", "num_parameters", "num_tensors"),
    [("tiny", 235_295, 180), ("small", 6_902_035, 164), ("hunyuan", 246_478_803, 248)],
)
def test_every_named_size_has_its_parameters(
    name: str, num_parameters: int, num_tensors: int
) -> None:
    with torch.device("meta"):
        vae = CausalVAE(VAE_CONFIGS[name])
    assert sum(parameter.numel() for parameter in vae.parameters()) == num_parameters
    assert len(vae.state_dict()) == num_tensors


def test_the_full_size_has_the_published_parts_and_keys() -> None:
    with torch.device("meta"):
        vae = CausalVAE(VAE_CONFIGS["hunyuan"])
    assert sum(p.numel() for p in vae.encoder.parameters()) == 100_341_408
    assert sum(p.numel() for p in vae.decoder.parameters()) == 146_136_067
    shapes = {name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()}
    assert shapes["encoder.conv_in.conv.weight"] == (128, 3, 3, 3, 3)
    assert shapes["encoder.down_blocks.1.downsamplers.0.conv.conv.weight"] == (256, 256, 3, 3, 3)
    assert shapes["encoder.mid_block.attentions.0.to_out.0.weight"] == (512, 512)
    assert shapes["decoder.up_blocks.2.upsamplers.0.conv.conv.bias"] == (256,)
    assert shapes["quant_conv.weight"] == (32, 32, 1, 1, 1)
    shortcuts = {name.split(".conv_shortcut")[0] for name in shapes if "conv_shortcut" in name}
    assert shortcuts == {
        "encoder.down_blocks.1.resnets.0",
        "encoder.down_blocks.2.resnets.0",
        "decoder.up_blocks.2.resnets.0",
        "decoder.up_blocks.3.resnets.0",
    }


def test_the_full_size_maps_frames_and_sides_as_published() -> None:
    assert VAE_CONFIGS["hunyuan"].latent_shape(129, 720, 1280) == (16, 33, 90, 160)
    with torch.device("meta"), torch.no_grad():
        vae = CausalVAE(VAE_CONFIGS["hunyuan"])
        posterior = vae.encode(torch.empty(1, 3, 9, 64, 96))
        assert posterior.mean.shape == (1, 16, 3, 8, 12)
        assert vae.decode(posterior.mode()).shape == (1, 3, 9, 64, 96)


@pytest.mark.parametrize("vae", causal_networks(), ids=["without norms", "per-frame norms"])
def test_the_future_does_not_change_the_past(vae: CausalVAE) -> None:
    video = draw(1, 3, 17, 16, 24)
    changed = video.clone()
    changed[:, :, 9:] = draw(1, 3, 8, 16, 24, seed=1)
    with torch.no_grad():
        latent, changed_latent = vae.encode(video).mean, vae.encode(changed).mean
        assert torch.equal(latent[:, :, :3], changed_latent[:, :, :3])
        assert not torch.equal(latent[:, :, 3:], changed_latent[:, :, 3:])
        decoded, changed_decoded = vae.decode(latent), vae.decode(changed_latent)
        assert torch.equal(decoded[:, :, :9], changed_decoded[:, :, :9])
        assert not torch.equal(decoded[:, :, 9:], changed_decoded[:, :, 9:])


@pytest.mark.parametrize("vae", causal_networks(), ids=["without norms", "per-frame norms"])
def test_an_image_is_the_first_frame_of_a_clip(vae: CausalVAE) -> None:
    video = draw(1, 3, 9, 16, 24)
    with torch.no_grad():
        image = vae.encode(video[:, :, :1]).mean
        torch.testing.assert_close(image, vae.encode(video).mean[:, :, :1], atol=1e-5, rtol=0)


def test_the_released_norm_hears_the_future() -> None:
    """Why per_frame_norm exists: the released network is not strictly causal."""
    vae = randomize(CausalVAE(TINY_VAE))
    video = draw(1, 3, 17, 16, 24)
    changed = video.clone()
    changed[:, :, 9:] = 3.0
    with torch.no_grad():
        difference = vae.encode(video).mean[:, :, :3] - vae.encode(changed).mean[:, :, :3]
    assert difference.abs().max() > 1e-4


@pytest.mark.parametrize("num_frames", [1, 4])
def test_attention_equals_one_with_a_dense_mask(num_frames: int) -> None:
    q, k, v = (draw(2, num_frames, 6, 8, seed=i, dtype=torch.float64) for i in range(3))
    frame = torch.arange(num_frames).repeat_interleave(6)
    scores = q.flatten(1, 2) @ k.flatten(1, 2).transpose(1, 2) / 8**0.5
    scores = scores.masked_fill(frame[:, None] < frame[None], -torch.inf)
    expected = (scores.softmax(dim=-1) @ v.flatten(1, 2)).view_as(q)
    found = frame_causal_attention(q, k, v)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_every_row_of_a_batch_is_independent() -> None:
    vae = randomize(CausalVAE(TINY_VAE)).double()
    video = draw(2, 3, 5, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        together = vae.decode(vae.encode(video).mode())
        alone = vae.decode(vae.encode(video[1:]).mode())
    torch.testing.assert_close(together[1:], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("tiled", [False, True])
def test_gradient_checkpointing_changes_no_bit(tiled: bool) -> None:
    vae = randomize(CausalVAE(TINY_VAE))
    if tiled:
        vae.enable_tiling(TINY_TILING)
    video = draw(1, 3, 21, 16, 40)

    def gradients() -> list[Tensor]:
        vae.zero_grad()
        reconstruction, posterior = vae(video, torch.Generator().manual_seed(0))
        (reconstruction.abs().mean() + posterior.kl().sum()).backward()
        return [p.grad.clone() for p in vae.parameters() if p.grad is not None]

    expected = gradients()
    vae.set_gradient_checkpointing(True)
    found = gradients()
    assert len(expected) == len(list(vae.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("padding", [(2, 1, 1), (2, 0, 0), (0, 2, 1)])
def test_both_ways_of_padding_agree(padding: tuple[int, int, int]) -> None:
    x = draw(1, 2, 3, 4, 5)
    padded = pad_with_edges(x, padding)
    assert torch.equal(pad_by_copies(x, padding), padded)
    t, h, w = padding
    assert padded.shape == (1, 2, 3 + t, 4 + 2 * h, 5 + 2 * w)
    assert torch.equal(padded[:, :, t:, h : h + 4, w : w + 5], x)
    assert torch.equal(padded[:, :, 0, 0, 0], x[:, :, 0, 0, 0])


def test_even_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"odd, got \(3, 2, 3\)"):
        CausalConv3d(1, 1, (3, 2, 3))


def test_samples_follow_the_generator_and_the_moments() -> None:
    posterior = DiagonalGaussian(torch.full((1, 1, 1, 100, 100), 2.0), torch.full((1,), 0.0))
    posterior = DiagonalGaussian(posterior.mean, torch.zeros_like(posterior.mean) + 2 * 1.0986123)
    first = posterior.sample(torch.Generator().manual_seed(3))
    assert torch.equal(first, posterior.sample(torch.Generator().manual_seed(3)))
    assert abs(first.mean() - 2.0) < 0.1
    assert abs(first.std() - 3.0) < 0.1


def test_kl_of_the_standard_normal_is_zero_and_of_a_shift_is_half_its_square() -> None:
    zeros = torch.zeros(2, 1, 1, 2, 3)
    assert torch.equal(DiagonalGaussian(zeros, zeros).kl(), torch.zeros(2))
    assert torch.equal(DiagonalGaussian(zeros + 2, zeros).kl(), torch.full((2,), 6 * 2.0))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((4, 16, 16), "1 \\+ a multiple of 4, got 4"),
        ((5, 20, 16), "multiples of 8, got 20x16"),
        ((5, 16, 0), "multiples of 8, got 16x0"),
        ((0, 16, 16), "got 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(size: tuple[int, int, int], message: str) -> None:
    vae = CausalVAE(TINY_VAE)
    with pytest.raises(ValueError, match=message):
        vae.encode(torch.zeros(1, 3, *size))


def test_wrong_channels_and_values_are_refused() -> None:
    vae = CausalVAE(TINY_VAE)
    with pytest.raises(ValueError, match=r"must be \(B, 3, T, H, W\), got \(1, 4, 1, 8, 8\)"):
        vae.encode(torch.zeros(1, 4, 1, 8, 8))
    with pytest.raises(ValueError, match=r"must be \(B, 4, T, H, W\), got \(4, 1, 2, 2\)"):
        vae.decode(torch.zeros(4, 1, 2, 2))
    latent = torch.zeros(1, 4, 1, 2, 2)
    latent[0, 0, 0, 1] = torch.nan
    with pytest.raises(ValueError, match="latent holds 2 of 16 values that are NaN"):
        vae.decode(latent)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spatial_compression_ratio": 6}, "power of two up to 8"),
        ({"temporal_compression_ratio": 16}, "power of two up to 8"),
        ({"norm_num_groups": 24}, "must divide every level"),
        ({"latent_chanels": 4}, "latent_chanels"),
    ],
)
def test_configs_that_make_no_network_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VAEConfig.model_validate(fields)


@pytest.mark.parametrize(("spatial", "temporal"), [(8, 4), (4, 2), (8, 8), (1, 1)])
def test_other_ratios_come_back_to_the_same_size(spatial: int, temporal: int) -> None:
    config = TINY_VAE.model_copy(
        update={"spatial_compression_ratio": spatial, "temporal_compression_ratio": temporal}
    )
    vae = CausalVAE(config)
    num_frames = config.sample_num_frames(3)
    with torch.no_grad():
        latent = vae.encode(draw(1, 3, num_frames, 16, 24)).mode()
        assert latent.shape == (1, 4, 3, 16 // spatial, 24 // spatial)
        assert vae.decode(latent).shape == (1, 3, num_frames, 16, 24)
