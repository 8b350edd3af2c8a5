import numpy as np
import pytest
import torch

from modeling.flow_matching import (
    FlowConfig,
    classifier_free_guidance,
    data_estimate,
    euler_step,
    integrate,
    interpolate,
    noise_estimate,
    sample_sigma,
    sampling_sigmas,
    shift_sigma,
    velocity_loss,
    velocity_target,
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = _generator()
    shape = (3, 4, 2, 5, 6)
    return (torch.randn(shape, generator=generator), torch.randn(shape, generator=generator))


def test_sigma_zero_is_data_and_sigma_one_is_noise() -> None:
    data, noise = _pair()
    assert torch.equal(interpolate(data, noise, torch.zeros(3)), data)
    assert torch.equal(interpolate(data, noise, torch.ones(3)), noise)


def test_one_euler_step_with_the_true_velocity_gives_the_data_back() -> None:
    data, noise = _pair()
    back = euler_step(noise, velocity_target(data, noise), 1.0, 0.0)
    torch.testing.assert_close(back, data, atol=1e-6, rtol=0)


def test_velocity_gives_back_both_ends_at_any_sigma() -> None:
    data, noise = _pair()
    sigma_B = torch.tensor([0.1, 0.5, 0.93])
    x_sigma = interpolate(data, noise, sigma_B)
    velocity = velocity_target(data, noise)
    torch.testing.assert_close(data_estimate(x_sigma, velocity, sigma_B), data)
    torch.testing.assert_close(noise_estimate(x_sigma, velocity, sigma_B), noise)


def test_loss_is_zero_for_the_true_velocity_and_counts_in_float32() -> None:
    data, noise = _pair()
    assert velocity_loss(noise - data, data, noise).tolist() == [0, 0, 0]
    wrong = (noise - data + 2).bfloat16()
    loss_B = velocity_loss(wrong, data.bfloat16(), noise.bfloat16())
    assert loss_B.dtype == torch.float32
    torch.testing.assert_close(loss_B, torch.full((3,), 4.0), atol=0.02, rtol=0)


@pytest.mark.parametrize(("num_steps", "shift"), [(50, 7.0), (10, 7.0), (10, 17.0), (4, 5.0)])
def test_sampling_sigmas_equal_those_of_diffusers(num_steps: int, shift: float) -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the oracle")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, num_steps + 1)[:-1])
    ours = torch.tensor(sampling_sigmas(num_steps, shift))
    torch.testing.assert_close(ours, scheduler.sigmas, atol=2e-7, rtol=0)
    torch.testing.assert_close(ours[:-1] * 1000, scheduler.timesteps, atol=2e-4, rtol=0)


def test_golden_sigmas_of_shift_seven() -> None:
    fifty = sampling_sigmas(50, 7.0)
    golden = [1.0, 0.997093, 0.994083, 0.225806, 0.125, 0.0]
    np.testing.assert_allclose([*fifty[:3], *fifty[-3:]], golden, atol=1e-6)
    ten = sampling_sigmas(10, 7.0)
    np.testing.assert_allclose(
        [*ten[:3], *ten[-3:]], [1.0, 0.984375, 0.965517, 0.636364, 0.4375, 0.0], atol=1e-6
    )


def test_few_steps_are_shifted_further() -> None:
    assert sampling_sigmas(19)[1] == sampling_sigmas(19, 17.0)[1]
    assert sampling_sigmas(20)[1] == sampling_sigmas(20, 7.0)[1]


@pytest.mark.parametrize(("shift", "median"), [(7.0, 0.875), (3.0, 0.75), (1.0, 0.5)])
def test_the_median_of_logit_normal_sigmas_follows_the_closed_form(
    shift: float, median: float
) -> None:
    sigma_B = sample_sigma(200_000, config=FlowConfig(shift=shift), generator=_generator())
    assert float(sigma_B.median()) == pytest.approx(median, abs=0.004)
    assert 0 < float(sigma_B.min()) < float(sigma_B.max()) < 1


def test_logit_normal_quantiles_are_those_of_the_normal() -> None:
    config = FlowConfig(logit_mean=0.5, logit_std=2.0)
    logit_B = torch.logit(sample_sigma(200_000, config=config, generator=_generator()).double())
    quantiles = torch.tensor([0.1587, 0.5, 0.8413], dtype=torch.float64)
    expected = torch.tensor([-1.5, 0.5, 2.5], dtype=torch.float64)
    torch.testing.assert_close(torch.quantile(logit_B, quantiles), expected, atol=0.03, rtol=0)


def test_stratified_sigmas_have_one_sample_in_each_slice_and_no_order() -> None:
    config = FlowConfig(distribution="uniform", stratified=True)
    sigma_B = sample_sigma(64, config=config, generator=_generator())
    assert sorted((sigma_B * 64).int().tolist()) == list(range(64))
    assert sigma_B.tolist() != sorted(sigma_B.tolist())


def test_stratified_logit_normal_has_the_same_distribution() -> None:
    config = FlowConfig(stratified=True)
    sigma_B = sample_sigma(10_000, config=config, generator=_generator())
    assert float(torch.logit(sigma_B.double()).std()) == pytest.approx(1.0, abs=0.01)


def test_resolution_shift_grows_with_the_root_of_the_tokens() -> None:
    config = FlowConfig(shift="resolution", base_tokens=256)
    assert config.shift_for(64) == 1
    assert config.shift_for(256 * 9) == 3
    with pytest.raises(ValueError, match="needs num_tokens"):
        sample_sigma(2, config=config, generator=_generator())


def test_same_seed_same_sigmas() -> None:
    first, second = (
        sample_sigma(8, config=FlowConfig(), generator=_generator(3)) for _ in range(2)
    )
    assert torch.equal(first, second)


def test_shift_keeps_both_ends() -> None:
    ends = torch.tensor([0.0, 1.0])
    assert torch.equal(shift_sigma(ends, 7.0), ends)


def test_heun_converges_at_second_order_where_euler_is_first() -> None:
    # dx/dsigma = x * 2 sigma has the solution x(0) = x(1) / e.
    exact = torch.exp(torch.tensor(-1.0, dtype=torch.float64))
    start = torch.ones(1, 1, dtype=torch.float64)

    def error(method: str, num_steps: int) -> float:
        end = integrate(
            lambda x, sigma: 2 * sigma * x,
            start,
            sampling_sigmas(num_steps, 1.0),
            method=method,  # type: ignore[arg-type]
        )
        return float((end - exact).abs())

    assert error("euler", 10) / error("euler", 20) == pytest.approx(2, rel=0.1)
    assert error("heun", 10) / error("heun", 20) > 3.5


def test_heun_never_asks_the_model_at_sigma_zero() -> None:
    asked: list[float] = []

    def velocity_at(x: torch.Tensor, sigma: float) -> torch.Tensor:
        asked.append(sigma)
        return x

    integrate(velocity_at, torch.ones(1, 2), sampling_sigmas(4, 7.0), method="heun")
    assert min(asked) > 0
    assert len(asked) == 7


def test_constant_velocity_is_followed_exactly_and_steps_are_counted() -> None:
    seen: list[int] = []
    end = integrate(
        lambda x, sigma: torch.full_like(x, 0.5),
        torch.ones(2, 3),
        sampling_sigmas(7, 7.0),
        on_step=seen.append,
    )
    torch.testing.assert_close(end, torch.full((2, 3), 0.5))
    assert seen == [1, 2, 3, 4, 5, 6, 7]


def test_guidance_is_linear_in_its_scale() -> None:
    conditional, unconditional = torch.tensor([3.0]), torch.tensor([1.0])
    values = [classifier_free_guidance(conditional, unconditional, s) for s in (0.0, 1.0, 6.0)]
    assert [float(v) for v in values] == [1.0, 3.0, 13.0]


@pytest.mark.parametrize(("num_steps", "shift"), [(0, 7.0), (5, 0.0), (5, -1.0)])
def test_impossible_schedules_are_refused(num_steps: int, shift: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        sampling_sigmas(num_steps, shift)
