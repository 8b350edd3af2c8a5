from typing import Any

import pytest
import torch
from torch import Tensor

from modeling.attention import attend
from modeling.dit import DIT_CONFIGS, DiTConfig, VideoDiT
from modeling.dit_layers import unpatchify
from tests.modeling.random_networks import TINY_DIT, draw, randomize

CONFIG = TINY_DIT.model_copy(update={"guidance_embeds": False})


def fields(num_rows: int, lengths: list[int], dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    return {
        "latent_BCTHW": draw(num_rows, 4, 3, 4, 6, seed=1, dtype=dtype),
        "sigma_B": torch.linspace(0.1, 0.9, num_rows),
        "text_BLD": draw(num_rows, 9, 24, seed=2, dtype=dtype),
        "text_lengths_B": torch.tensor(lengths),
        "pooled_BD": draw(num_rows, 12, seed=3, dtype=dtype),
    }


def network(dtype: torch.dtype = torch.float64) -> VideoDiT:
    return randomize(VideoDiT(CONFIG), std=0.2).to(dtype)


def test_the_full_size_has_the_published_keys() -> None:
    with torch.device("meta"):
        model = VideoDiT(DIT_CONFIGS["hunyuan"])
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert len(shapes) == 856
    published = {
        "img_in.proj.weight": (3072, 16, 1, 2, 2),
        "txt_in.input_embedder.weight": (3072, 4096),
        "txt_in.t_embedder.mlp.0.weight": (3072, 256),
        "txt_in.t_embedder.mlp.2.bias": (3072,),
        "txt_in.c_embedder.linear_1.weight": (3072, 4096),
        "txt_in.c_embedder.linear_2.weight": (3072, 3072),
        "txt_in.individual_token_refiner.blocks.1.norm2.weight": (3072,),
        "txt_in.individual_token_refiner.blocks.1.self_attn_qkv.weight": (9216, 3072),
        "txt_in.individual_token_refiner.blocks.1.self_attn_proj.bias": (3072,),
        "txt_in.individual_token_refiner.blocks.1.mlp.fc1.weight": (12288, 3072),
        "txt_in.individual_token_refiner.blocks.1.adaLN_modulation.1.weight": (6144, 3072),
        "time_in.mlp.0.weight": (3072, 256),
        "vector_in.in_layer.weight": (3072, 768),
        "vector_in.out_layer.weight": (3072, 3072),
        "guidance_in.mlp.2.weight": (3072, 3072),
        "double_blocks.19.img_mod.linear.weight": (18432, 3072),
        "double_blocks.19.txt_mod.linear.bias": (18432,),
        "double_blocks.19.img_attn_qkv.weight": (9216, 3072),
        "double_blocks.19.txt_attn_q_norm.weight": (128,),
        "double_blocks.19.img_attn_proj.weight": (3072, 3072),
        "double_blocks.19.txt_mlp.fc2.weight": (3072, 12288),
        "single_blocks.39.linear1.weight": (21504, 3072),
        "single_blocks.39.linear2.weight": (3072, 15360),
        "single_blocks.39.k_norm.weight": (128,),
        "single_blocks.39.modulation.linear.weight": (9216, 3072),
        "final_layer.linear.weight": (64, 3072),
        "final_layer.adaLN_modulation.1.weight": (6144, 3072),
    }
    assert {name: shapes.get(name) for name in published} == published


def test_a_fresh_network_says_zero_and_learns_from_there() -> None:
    model = VideoDiT(CONFIG)
    out = model(**fields(2, [9, 4], torch.float32))
    assert torch.equal(out, torch.zeros_like(out))
    (out - 1).square().sum().backward()
    gradient = model.final_layer.linear.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_weights_made_off_the_meta_device_are_those_of_a_fresh_network() -> None:
    torch.manual_seed(0)
    expected = VideoDiT(CONFIG)
    with torch.device("meta"):
        model = VideoDiT(CONFIG)
    model = model.to_empty(device="cpu")
    torch.manual_seed(0)
    expected.init_weights()
    torch.manual_seed(0)
    model.init_weights()
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.state_dict().items())


def test_padding_does_not_matter() -> None:
    model, given = network(), fields(2, [5, 7])
    expected = model(**given)
    for noise in (torch.zeros(()), torch.tensor(50.0)):
        padded = given | {
            "text_BLD": torch.cat([given["text_BLD"], noise.expand(2, 3, 24).double()], dim=1)
        }
        padded["text_BLD"][0, 5:] = noise
        torch.testing.assert_close(model(**padded), expected, atol=1e-12, rtol=0)


def test_rows_of_a_batch_equal_rows_alone() -> None:
    model, given = network(), fields(3, [9, 2, 5])
    together = model(**given)
    for row in range(3):
        alone = model(**{name: value[row : row + 1] for name, value in given.items()})
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("lengths", "masked"), [([6, 6], False), ([9, 9], False), ([6, 9], True)])
def test_equal_lengths_take_no_mask(lengths: list[int], masked: bool) -> None:
    model = network()
    seen: list[tuple[bool, int]] = []

    def spy(q: Tensor, k: Tensor, v: Tensor, num_valid_B: Tensor | None) -> Tensor:
        seen.append((num_valid_B is not None, k.shape[2]))
        return attend(q, k, v, num_valid_B)

    expected = model(**fields(2, lengths))
    model.set_attention(spy)
    assert torch.equal(model(**fields(2, lengths)), expected)
    assert seen == [(masked, 3 * 2 * 3 + max(lengths))] * 5


def test_attention_among_the_valid_tokens_equals_a_loop() -> None:
    q, k, v = (draw(3, 2, 7, 4, seed=i, dtype=torch.float64) for i in range(3))
    lengths = [7, 1, 4]
    found = attend(q, k, v, torch.tensor(lengths))
    for row, n in enumerate(lengths):
        scores = q[row, :, :n] @ k[row, :, :n].transpose(1, 2) / 2
        expected = scores.softmax(dim=-1) @ v[row, :, :n]
        torch.testing.assert_close(found[row, :, :n], expected, atol=1e-12, rtol=0)


def test_gradient_checkpointing_changes_no_bit() -> None:
    model, given = network(torch.float32), fields(2, [9, 4], torch.float32)

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model(**given).square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    expected = gradients()
    model.set_gradient_checkpointing(True)
    assert len(expected) == len(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(expected, gradients(), strict=True))


def test_every_output_cell_depends_on_every_input_cell() -> None:
    model, given = network(), fields(1, [9])
    given["latent_BCTHW"].requires_grad_()
    corner = model(**given)[0, 0, 0, 0, 0]
    (gradient,) = torch.autograd.grad(corner, given["latent_BCTHW"])
    assert (gradient.abs() > 0).all()


def test_tokens_go_back_to_their_places_in_the_order_of_time_height_width() -> None:
    config = CONFIG.model_copy(update={"patch_size_t": 2})
    latent = draw(2, 4, 4, 6, 8)
    # A token's values as the strided convolution sees them: channel, then patch t, h, w.
    patches = latent.view(2, 4, 2, 2, 3, 2, 4, 2).permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
    assert torch.equal(unpatchify(patches.flatten(1, 3), (2, 3, 4), config.patch), latent)


def test_the_embedding_of_time_is_that_of_thousandths() -> None:
    model = network(torch.float32)
    seen: list[Tensor] = []
    model.time_in.register_forward_hook(lambda _m, args, _out: seen.append(args[0]))
    model(**fields(2, [9, 9], torch.float32) | {"sigma_B": torch.tensor([0.25, 1.0])})
    assert torch.equal(seen[0], torch.tensor([250.0, 1000.0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_BCTHW": torch.zeros(2, 5, 3, 4, 6)}, r"latent must be \(B, 4, T, H, W\)"),
        (
            {"latent_BCTHW": torch.zeros(2, 4, 3, 5, 6)},
            r"multiples of \(1, 2, 2\), got \(3, 5, 6\)",
        ),
        ({"sigma_B": torch.zeros(2, 1)}, r"sigma must have shape \(2,\), got \(2, 1\)"),
        (
            {"text_BLD": torch.zeros(2, 9, 25)},
            r"text must have shape \(2, 9, 24\), got \(2, 9, 25\)",
        ),
        ({"text_lengths_B": torch.tensor([0, 4])}, r"lie in \[1, 9\], got \[0, 4\]"),
        ({"text_lengths_B": torch.tensor([9, 10])}, r"lie in \[1, 9\], got \[9, 10\]"),
        ({"pooled_BD": torch.zeros(1, 12)}, r"pooled must have shape \(2, 12\), got \(1, 12\)"),
        ({"guidance_B": torch.ones(2)}, "guidance is given, but .* guidance_embeds=False"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(changes: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(torch.float32)(**fields(2, [9, 9], torch.float32) | changes)


def test_a_distilled_network_asks_for_its_guidance() -> None:
    with pytest.raises(ValueError, match="guidance is missing"):
        VideoDiT(TINY_DIT)(**fields(2, [9, 9], torch.float32))


def test_values_are_checked_outside_training() -> None:
    model, given = network(torch.float32).eval(), fields(2, [9, 9], torch.float32)
    given["latent_BCTHW"][0, 0, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="latent holds 1 of 576 values"):
        model(**given)
    given = fields(2, [9, 9], torch.float32) | {"sigma_B": torch.tensor([0.5, 437.5])}
    with pytest.raises(ValueError, match=r"sigma must lie in \[0, 1\], got \[0.5, 437.5\]"):
        model(**given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_axes_dim": (16, 56, 57)}, "must sum to attention_head_dim"),
        ({"rope_axes_dim": (17, 55, 56)}, "must be even"),
        ({"image_condition_type": "latent_concat"}, "image_condition_type"),
        ({"num_heads": 3}, "num_heads"),
    ],
)
def test_configs_that_make_no_network_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiTConfig.model_validate(changes)
