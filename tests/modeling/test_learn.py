"""The tiny networks learn, on one core, within about a minute together."""

import pytest
import torch

from benchmarks.learn_optimizer import orthogonalized
from benchmarks.learn_start import start_linear
from modeling.dit import DiTConfig, VideoDiT
from modeling.flow_matching import (
    FlowConfig,
    integrate,
    interpolate,
    sample_sigma,
    sampling_sigmas,
    velocity_loss,
)
from modeling.vae import VAE_CONFIGS, CausalVAE, VAEConfig
from modeling.vae_layers import ResnetBlock
from modeling.vae_loss import VaeLoss, VaeLossConfig


def _moving_waves(num_clips: int, num_frames: int, side: int) -> torch.Tensor:
    """Coloured waves that drift, each clip in its own direction: (B, 3, T, H, W) in [-1, 1]."""
    time = torch.arange(num_frames).view(-1, 1, 1) / 4
    y, x = torch.meshgrid(*[torch.arange(side) / side * 6.28] * 2, indexing="ij")
    clips = []
    for number in range(num_clips):
        phases = [x * (1 + number % 2) + time, y * (1 + number // 2) - time, x + y + 2 * time]
        clips.append(torch.stack([torch.sin(phase + number) for phase in phases]))
    return torch.stack(clips) * 0.8


def test_the_tiny_vae_reduces_its_loss() -> None:
    torch.manual_seed(0)
    vae = CausalVAE(VAE_CONFIGS["tiny"])
    loss = VaeLoss(VaeLossConfig(), perceptual=None, discriminator=None)
    assert vae.quant_conv.bias is not None
    with torch.no_grad():
        vae.quant_conv.bias[vae.config.latent_channels :] = -6  # start with quiet latents
        for module in vae.modules():
            if isinstance(module, ResnetBlock):
                module.conv2.conv.weight.zero_()  # and almost linear
    optimizer = torch.optim.Adam(vae.parameters(), lr=1.5e-3, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(0)
    videos = {5: _moving_waves(2, 5, 32), 1: _moving_waves(2, 1, 32)}
    history = []
    for step in range(100):
        video = videos[1 if step % 5 == 4 else 5]  # image : video = 1 : 4
        decoded, posterior = vae(video, generator)
        last_layer = vae.decoder.conv_out.conv.weight
        terms = loss.generator(video, decoded, posterior, step=step, last_layer=last_layer)
        optimizer.zero_grad()
        torch.autograd.backward(terms.total)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        history.append(float(terms.l1.detach()))
    assert sum(history[-5:]) < 0.55 * sum(history[:5])


def test_the_tiny_dit_overfits_four_clips_and_gives_them_back() -> None:
    torch.manual_seed(0)
    config = DiTConfig(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=32,
        rope_axes_dim=(8, 12, 12),
        num_layers=2,
        num_single_layers=2,
        guidance_embeds=False,
        text_embed_dim=16,
        pooled_projection_dim=8,
    )
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(4, 4, 2, 4, 4, generator=generator)
    text = torch.randn(4, 3, 16, generator=generator)
    pooled = torch.randn(4, 8, generator=generator)
    lengths = torch.full((4,), 3)
    model = VideoDiT(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    flow = FlowConfig(stratified=True)
    history = []
    for step in range(350):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 20) * min(1, (350 - step) / 100)
        chosen = torch.arange(4).repeat(4)
        noise = torch.randn(16, *data.shape[1:], generator=generator)
        sigma_B = sample_sigma(16, config=flow, generator=generator)
        noisy = interpolate(data[chosen], noise, sigma_B)
        velocity = model(noisy, sigma_B, text[chosen], lengths[chosen], pooled[chosen])
        loss = velocity_loss(velocity, data[chosen], noise).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[0] == pytest.approx(2, abs=0.3)  # a fresh network says 0
    assert sum(history[-20:]) / 20 < 0.25

    model.eval()
    with torch.no_grad():
        sampled = integrate(
            lambda x, sigma: model(x, torch.full((4,), sigma), text, lengths, pooled),
            torch.randn(data.shape, generator=generator),
            sampling_sigmas(20, 1.0),
        )
    distance = (sampled[:, None] - data[None]).square().flatten(2).mean(2)
    assert distance.argmin(1).tolist() == [0, 1, 2, 3]  # each caption gives its own clip
    assert float(distance.diagonal().max()) < 0.3


def _plain_vae() -> CausalVAE:
    """Fit for the linear start: no attention, one group a norm."""
    torch.manual_seed(0)
    return CausalVAE(
        VAEConfig(
            block_out_channels=(8, 16, 40, 40),
            layers_per_block=1,
            norm_num_groups=1,
            mid_block_add_attention=False,
        )
    )


def test_the_linear_start_gives_the_mean_color_of_every_block_back() -> None:
    vae = _plain_vae()
    shades = torch.rand(6, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    blocks = shades.repeat_interleave(8, 3).repeat_interleave(8, 4)
    start_linear(vae, [blocks[:5], blocks[:5].expand(-1, -1, 5, -1, -1).contiguous()])
    with torch.no_grad():
        before, posterior = vae(blocks[5:])
    middle = before[:, :, :, 4::8, 4::8]
    assert float((middle - shades[5:]).abs().max()) < 0.25  # of a range of 1.6, before training
    assert float(posterior.logvar.max()) < -9
    assert 0.3 < float(posterior.mean.square().mean().sqrt()) < 3


def test_orthogonalized_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(3, 12, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalized(matrices))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
