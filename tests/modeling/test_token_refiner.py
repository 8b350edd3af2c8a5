import pytest
import torch

from modeling.token_refiner import TokenRefiner, masked_mean
from tests.modeling.random_networks import TINY_DIT, draw, randomize


def test_rows_of_a_batch_equal_rows_alone() -> None:
    refiner = randomize(TokenRefiner(TINY_DIT), std=0.3).double()
    text_BLD = draw(3, 9, 24, dtype=torch.float64)
    lengths, timestep_B = [4, 9, 1], torch.tensor([10.0, 500.0, 999.0])
    together = refiner(text_BLD, timestep_B, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = refiner(text_BLD[row : row + 1, :length], timestep_B[row : row + 1], None)
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-12, rtol=0)


def test_every_token_sees_the_whole_prompt() -> None:
    refiner = randomize(TokenRefiner(TINY_DIT), std=0.3).double()
    text_BLD = draw(1, 6, 24, dtype=torch.float64)
    changed = text_BLD.clone()
    # In opposite directions: the mean, another path to every token, stays.
    changed[0, 4] += 1
    changed[0, 5] -= 1
    timestep_B = torch.tensor([100.0])
    first = refiner(text_BLD, timestep_B, None)[0, 0]
    assert (first - refiner(changed, timestep_B, None)[0, 0]).abs().max() > 1e-4


def test_the_mean_leaves_padding_out_even_if_it_is_not_a_number() -> None:
    text_BLD = draw(2, 4, 3)
    text_BLD[0, 2:] = torch.nan
    mean = masked_mean(text_BLD, torch.tensor([2, 4]))
    torch.testing.assert_close(mean[0], text_BLD[0, :2].mean(dim=0))
    torch.testing.assert_close(mean[1], text_BLD[1].mean(dim=0))


@pytest.mark.parametrize("num_layers", [0, 3])
def test_a_fresh_refiner_is_the_projection_when_gates_are_zero(num_layers: int) -> None:
    config = TINY_DIT.model_copy(update={"num_refiner_layers": num_layers})
    refiner = randomize(TokenRefiner(config))
    with torch.no_grad():
        for name, parameter in refiner.named_parameters():
            if "adaLN_modulation" in name:
                parameter.zero_()
    text_BLD = draw(2, 5, 24)
    out = refiner(text_BLD, torch.tensor([1.0, 2.0]), torch.tensor([5, 3]))
    assert torch.equal(out, refiner.input_embedder(text_BLD))
