import pytest
import torch
from torch import nn

from modeling.discriminator import (
    DiscriminatorConfig,
    PatchDiscriminator3d,
    hinge_discriminator_loss,
    hinge_generator_loss,
    r1_penalty,
)

_SMALL = DiscriminatorConfig(base_channels=8, num_layers=3)


def _clip(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_hinge_of_the_discriminator_has_its_analytic_values() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 1.0])
    # real: 0, 0.5, 2 -> 2.5 / 3; fake: 0, 1, 2 -> 1
    assert float(hinge_discriminator_loss(real, fake)) == pytest.approx(0.5 * (2.5 / 3 + 1))
    assert float(hinge_discriminator_loss(torch.ones(3), -torch.ones(3))) == 0


def test_hinge_of_the_generator_is_minus_the_mean_logit() -> None:
    assert float(hinge_generator_loss(torch.tensor([1.0, -4.0]))) == 1.5


@pytest.mark.parametrize(
    ("frames", "expected"), [(1, (1, 1, 1, 8, 12)), (17, (1, 1, 9, 8, 12)), (5, (1, 1, 3, 8, 12))]
)
def test_logits_are_a_grid_of_patches_for_images_and_videos(
    frames: int, expected: tuple[int, ...]
) -> None:
    logits = PatchDiscriminator3d(_SMALL)(_clip(1, 3, frames, 64, 96))
    assert tuple(logits.shape) == expected


def test_a_clip_gets_the_same_verdict_alone_and_in_a_batch() -> None:
    discriminator = PatchDiscriminator3d(_SMALL)
    clips = _clip(3, 3, 5, 32, 32)
    together, alone = discriminator(clips), discriminator(clips[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-6, rtol=1e-5)


def test_a_patch_does_not_see_the_far_corner_but_through_the_norm() -> None:
    discriminator = PatchDiscriminator3d(_SMALL)
    for name, module in list(discriminator.layers.named_children()):
        if isinstance(module, nn.GroupNorm):
            discriminator.layers.register_module(name, nn.Identity())
    clip = _clip(1, 3, 1, 128, 128).requires_grad_()
    discriminator(clip)[0, 0, 0, 0, 0].backward()
    assert clip.grad is not None
    assert float(clip.grad[..., :16, :16].abs().sum()) > 0
    assert float(clip.grad[..., 64:, :].abs().sum()) == 0


def test_it_learns_to_tell_two_kinds_of_clip_apart() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator3d(_SMALL)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.9))
    real, fake = _clip(4, 3, 1, 32, 32), _clip(4, 3, 1, 32, 32, seed=1)
    fake = torch.nn.functional.avg_pool3d(fake, (1, 3, 3), stride=1, padding=(0, 1, 1))
    for _ in range(40):
        loss = hinge_discriminator_loss(discriminator(real), discriminator(fake))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert float(loss.detach()) < 0.2


def test_r1_of_a_linear_discriminator_is_half_its_squared_weights() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight

    network = Linear()
    penalty = r1_penalty(network, torch.randn(5, 3))
    assert float(penalty.detach()) == pytest.approx(7)
    torch.autograd.backward(penalty)
    assert network.weight.grad is not None
    torch.testing.assert_close(network.weight.grad, torch.tensor([1.0, -2.0, 3.0]))
