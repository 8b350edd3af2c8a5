import numpy as np
import torch

from modeling.data.draw import generator, normal_like, permutation, seed_of, share, whole_number


def test_every_part_of_the_name_makes_another_stream() -> None:
    names = [
        (seed, key, step, stream)
        for seed in (0, 1, 11)
        for key in ("", "a", "a1", "0")
        for step in (0, 1, 11)
        for stream in ("noise", "noise1", "crop")
    ]
    seeds = {seed_of(seed, key=key, step=step, stream=stream) for seed, key, step, stream in names}
    assert len(seeds) == len(names)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_noise_depends_on_the_sample_not_on_its_neighbors() -> None:
    whole = normal_like((4, 5), seed=7, keys=("a", "b", "c"), step=3, stream="noise")
    part = normal_like((4, 5), seed=7, keys=("c", "a"), step=3, stream="noise")
    assert torch.equal(part, whole[[2, 0]])
    later = normal_like((4, 5), seed=7, keys=("a",), step=4, stream="noise")
    assert not torch.equal(later[0], whole[0])
    again = torch.randn((4, 5), generator=generator(7, key="a", step=3, stream="noise"))
    assert torch.equal(again, whole[0])


def test_noise_is_standard_normal_over_samples() -> None:
    noise = normal_like((16,), seed=0, keys=tuple(map(str, range(2000))), step=0, stream="noise")
    assert abs(noise.mean().item()) < 0.02
    assert abs(noise.std().item() - 1) < 0.02


def test_shares_and_whole_numbers_are_uniform() -> None:
    shares = np.array([share(seed=0, key=str(n), step=0, stream="a") for n in range(4000)])
    assert shares.min() >= 0
    assert shares.max() < 1
    assert np.abs(np.histogram(shares, 10, (0, 1))[0] - 400).max() < 100
    numbers = [whole_number(5, seed=0, key=str(n), step=0, stream="a") for n in range(4000)]
    assert np.abs(np.bincount(numbers, minlength=5) - 800).max() < 140


def test_a_permutation_holds_everything_once_and_never_changes() -> None:
    order = permutation(1000, seed=1, key="a", step=2, stream="b")
    assert sorted(order.tolist()) == list(range(1000))
    assert permutation(6, seed=1, key="a", step=2, stream="b").tolist() == [4, 1, 3, 5, 2, 0]
    assert len(permutation(0, seed=1, key="a", step=2, stream="b")) == 0
