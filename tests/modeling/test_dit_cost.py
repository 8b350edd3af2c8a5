import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from modeling.dit import DIT_CONFIGS, VideoDiT
from modeling.dit_cost import forward_flops, num_parameters
from tests.modeling.random_networks import TINY_DIT, draw


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny", 178_512),
        ("50m", 47_728_448),
        ("340m", 339_213_888),
        ("1.3b", 1_341_381_696),
        ("hunyuan", 12_821_012_544),
        ("hunyuan-undistilled", 12_810_782_784),
    ],
)
def test_every_named_size_has_its_parameters(name: str, expected: int) -> None:
    with torch.device("meta"):
        model = VideoDiT(DIT_CONFIGS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert num_parameters(DIT_CONFIGS[name]) == expected


@pytest.mark.parametrize("guidance", [False, True])
@pytest.mark.parametrize("num_text_tokens", [1, 7])
def test_the_formula_counts_what_pytorch_counts(guidance: bool, num_text_tokens: int) -> None:
    config = TINY_DIT.model_copy(update={"guidance_embeds": guidance})
    model = VideoDiT(config)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(
            draw(1, 4, 3, 8, 12),
            torch.tensor([0.5]),
            draw(1, num_text_tokens, 24),
            torch.tensor([num_text_tokens]),
            draw(1, 12),
            torch.tensor([6.0]) if guidance else None,
        )
    flops = forward_flops(config, num_image_tokens=3 * 4 * 6, num_text_tokens=num_text_tokens)
    assert counter.get_total_flops() == flops
