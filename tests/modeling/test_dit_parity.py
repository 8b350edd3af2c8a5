"""Against diffusers' implementation, with random weights in every tensor."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modeling.dit import DiTConfig, VideoDiT
from modeling.interop import to_diffusers
from modeling.interop_keys import dit_tensor_maps
from tests.modeling.random_networks import TINY_DIT, diffusers_dit, draw, randomize

WITHOUT_GUIDANCE = TINY_DIT.model_copy(update={"guidance_embeds": False})
OTHER_PATCH = TINY_DIT.model_copy(update={"patch_size_t": 2, "in_channels": 3, "out_channels": 5})
WIDE_MLP = TINY_DIT.model_copy(
    update={"mlp_ratio": 2.5, "num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1}
)
LENGTHS = [5, 7]


def pair(config: DiTConfig, dtype: torch.dtype) -> tuple[VideoDiT, Any]:
    ours = randomize(VideoDiT(config)).to(dtype)
    theirs = diffusers_dit(config)
    state = ours.state_dict()
    cut = {
        each.name: torch.cat([state[each.original][start:end] for start, end in each.rows])
        for each in dit_tensor_maps(config)
    }
    for name, parameter in theirs.named_parameters():
        parameter.data = cut.pop(name).clone()
    assert cut == {}
    return ours, theirs


def inputs(
    config: DiTConfig, size: tuple[int, int, int], dtype: torch.dtype, num_rows: int = 2
) -> dict[str, Tensor]:
    fields = {
        "latent_BCTHW": draw(2, config.in_channels, *size, seed=1, dtype=dtype),
        "sigma_B": torch.tensor([1.0, 0.4375]),
        "text_BLD": draw(2, max(LENGTHS), config.text_embed_dim, seed=2, dtype=dtype),
        "text_lengths_B": torch.tensor(LENGTHS),
        "pooled_BD": draw(2, config.pooled_projection_dim, seed=3, dtype=dtype),
    }
    if config.guidance_embeds:
        fields["guidance_B"] = torch.tensor([6.0, 1.0])
    return {name: value[:num_rows] for name, value in fields.items()}


def run_theirs(model: Any, fields: dict[str, Tensor]) -> Tensor:
    lengths = fields["text_lengths_B"]
    mask = torch.arange(fields["text_BLD"].shape[1]) < lengths[:, None]
    guidance = fields.get("guidance_B")
    out: Tensor = model(
        fields["latent_BCTHW"],
        fields["sigma_B"] * 1000,
        fields["text_BLD"],
        mask.long(),
        fields["pooled_BD"],
        None if guidance is None else guidance * 1000,
    ).sample
    return out


@pytest.mark.parametrize("config", [TINY_DIT, WITHOUT_GUIDANCE, OTHER_PATCH, WIDE_MLP])
@pytest.mark.parametrize("size", [(4, 8, 12), (2, 6, 2)])
def test_velocities_are_equal(config: DiTConfig, size: tuple[int, int, int]) -> None:
    ours, theirs = pair(config, torch.float64)
    fields = inputs(config, size, torch.float64)
    with torch.no_grad():
        found, expected = ours(**fields), run_theirs(theirs, fields)
    assert found.shape == (2, config.out_channels, *size)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("num_rows", [1, 2])
@pytest.mark.parametrize("num_frames", [1, 3])
def test_images_and_clips_are_equal_in_single_precision(num_frames: int, num_rows: int) -> None:
    ours, theirs = pair(TINY_DIT, torch.float32)
    fields = inputs(TINY_DIT, (num_frames, 8, 12), torch.float32, num_rows)
    with torch.no_grad():
        found, expected = ours(**fields), run_theirs(theirs, fields)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_half_precision_stays_close() -> None:
    ours, theirs = pair(TINY_DIT, torch.float32)
    fields = inputs(TINY_DIT, (3, 8, 12), torch.float32)
    with torch.no_grad():
        expected = run_theirs(theirs, fields)
        halves = {
            name: value.bfloat16() if name in ("latent_BCTHW", "text_BLD", "pooled_BD") else value
            for name, value in fields.items()
        }
        found = ours.bfloat16()(**halves).float()
    assert (found - expected).norm() / expected.norm() < 2e-2


def test_gradients_are_equal() -> None:
    ours, theirs = pair(TINY_DIT, torch.float64)
    fields = inputs(TINY_DIT, (3, 8, 12), torch.float64)
    weight = draw(2, 4, 3, 8, 12, seed=4, dtype=torch.float64)
    (ours(**fields) * weight).sum().backward()
    (run_theirs(theirs, fields) * weight).sum().backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    difference = norm = 0.0
    for each in dit_tensor_maps(TINY_DIT):
        if "refiner" in each.name and each.name.endswith("to_k.bias"):
            continue  # Softmax does not change under a shift: the true gradient is zero.
        gradient = gradients[each.original]
        assert gradient is not None, each.original
        cut = torch.cat([gradient[start:end] for start, end in each.rows])
        difference += float((cut - expected[each.name]).square().sum())
        norm += float(expected[each.name].square().sum())
    assert norm > 0
    assert (difference / norm) ** 0.5 < 1e-7


def test_every_block_gives_the_same_stream() -> None:
    ours, theirs = pair(TINY_DIT, torch.float64)
    fields = inputs(TINY_DIT, (3, 8, 12), torch.float64)
    ours_out: list[Any] = []
    theirs_out: list[Any] = []
    for blocks, outs in (
        ([*ours.double_blocks, *ours.single_blocks], ours_out),
        ([*theirs.transformer_blocks, *theirs.single_transformer_blocks], theirs_out),
    ):
        for block in blocks:
            block.register_forward_hook(lambda _m, _i, out, outs=outs: outs.append(out))
    with torch.no_grad():
        ours(**fields)
        run_theirs(theirs, fields)
    assert len(ours_out) == len(theirs_out) == 5
    num_image = 3 * 4 * 6
    for found, expected in zip(ours_out, theirs_out, strict=True):
        image, text = (
            found if isinstance(found, tuple) else (found[:, :num_image], found[:, num_image:])
        )
        torch.testing.assert_close(image, expected[0], atol=1e-8, rtol=0)
        for row, length in enumerate(LENGTHS):
            torch.testing.assert_close(
                text[row, :length], expected[1][row, :length], atol=1e-8, rtol=0
            )


def test_the_written_folder_computes_the_same(tmp_path: Path) -> None:
    ours, theirs = pair(TINY_DIT, torch.float32)
    to_diffusers(ours, tmp_path)
    fields = inputs(TINY_DIT, (3, 8, 12), torch.float32)
    loaded = type(theirs).from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(run_theirs(loaded, fields), run_theirs(theirs, fields))
