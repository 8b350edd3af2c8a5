import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from modeling.vae import CausalVAE
from modeling.vae_operations import repeat_nearest
from modeling.vae_tiling import TilingConfig, blend, decode_plan, encode_plan, iter_tiled, tiled
from tests.modeling.random_networks import TINY_TILING, TINY_VAE, draw, randomize

RATIOS = {"spatial": 8, "temporal": 4}


def averaging_encoder(video_BCTHW: Tensor) -> Tensor:
    """Causal and without memory, so cutting cannot change it: cell means, frame 0 alone."""
    small = F.avg_pool3d(video_BCTHW, (1, 8, 8))
    return torch.cat([small[:, :, :1], F.avg_pool3d(small[:, :, 1:], (4, 1, 1))], dim=2)


def repeating_decoder(latent_BCTHW: Tensor) -> Tensor:
    return torch.cat(
        [
            repeat_nearest(latent_BCTHW[:, :, :1], (1, 8, 8)),
            repeat_nearest(latent_BCTHW[:, :, 1:], (4, 8, 8)),
        ],
        dim=2,
    )


@pytest.mark.parametrize("size", [(17, 32, 32), (33, 48, 56), (65, 32, 80), (21, 40, 32)])
def test_cutting_a_codec_without_memory_changes_nothing(size: tuple[int, int, int]) -> None:
    """Fails when an extent of pixels is used on latents: tiles would be mixed out of place."""
    video = draw(1, 2, *size, dtype=torch.float64)
    latent = averaging_encoder(video)
    encoded = tiled(averaging_encoder, video, encode_plan(TINY_TILING, **RATIOS))
    torch.testing.assert_close(encoded, latent, atol=1e-12, rtol=0)
    decoded = tiled(repeating_decoder, latent, decode_plan(TINY_TILING, **RATIOS))
    torch.testing.assert_close(decoded, repeating_decoder(latent), atol=1e-12, rtol=0)


def test_the_blend_starts_with_the_old_tile_and_never_quite_leaves_it() -> None:
    mixed = blend(torch.zeros(1, 6), torch.ones(1, 6), dim=1, overlap=4)
    assert torch.equal(mixed, torch.tensor([[0, 0.25, 0.5, 0.75, 1, 1]]))


def test_the_blend_leaves_its_inputs_alone() -> None:
    previous, current = torch.zeros(1, 6), torch.ones(1, 6)
    blend(previous, current, dim=1, overlap=4)
    assert torch.equal(previous, torch.zeros(1, 6))
    assert torch.equal(current, torch.ones(1, 6))


def test_a_short_last_tile_is_blended_over_its_own_length() -> None:
    mixed = blend(torch.zeros(1, 6), torch.ones(1, 2), dim=1, overlap=4)
    assert torch.equal(mixed, torch.tensor([[0, 0.5]]))


def test_a_clip_within_one_tile_is_not_cut() -> None:
    vae = randomize(CausalVAE(TINY_VAE))
    video = draw(1, 3, 17, 32, 32)
    with torch.no_grad():
        mean = vae.encode(video).mean
        decoded = vae.decode(mean)
        vae.enable_tiling(TINY_TILING)
        assert torch.equal(vae.encode(video).mean, mean)
        assert torch.equal(vae.decode(mean), decoded)


def test_pieces_in_time_add_up_to_the_whole() -> None:
    vae = randomize(CausalVAE(TINY_VAE))
    vae.enable_tiling(TINY_TILING)
    latent = draw(1, 4, 9, 4, 5)
    with torch.no_grad():
        pieces = list(vae.iter_decode(latent))
        assert [piece.shape[2] for piece in pieces] == [13, 12, 8]
        assert torch.equal(torch.cat(pieces, dim=2), vae.decode(latent))


def test_tiles_carry_gradients_to_every_input_cell() -> None:
    vae = randomize(CausalVAE(TINY_VAE))
    vae.enable_tiling(TINY_TILING)
    latent = draw(1, 4, 6, 5, 4).requires_grad_()
    vae.decode(latent).square().sum().backward()  # type: ignore[no-untyped-call]
    assert latent.grad is not None
    assert (latent.grad.abs().sum(dim=1) > 0).all()


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are alive, as operations make and drop them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: dict[int, int] = {}
        self.peak: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.live:
                    self.live[key] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, key, None)
        self.peak = max(self.peak, sum(self.live.values()))
        return out


def peak_of_pieces(latent: Tensor) -> int:
    """Peak bytes while the pieces are made and thrown away."""
    vae = randomize(CausalVAE(TINY_VAE))
    vae.enable_tiling(TINY_TILING)
    counter = LiveBytes()
    with torch.no_grad(), counter:
        for piece in vae.iter_decode(latent):
            del piece
    return counter.peak


def test_memory_does_not_grow_with_the_length() -> None:
    short = peak_of_pieces(draw(1, 4, 9, 2, 2))
    long = peak_of_pieces(draw(1, 4, 33, 2, 2))
    assert long < 1.05 * short


def test_memory_grows_with_the_picture_by_the_picture_alone() -> None:
    """A wider frame costs its own pixels (in pieces, joined, and blended), not activations."""
    narrow, wide = draw(1, 4, 1, 4, 7), draw(1, 4, 1, 4, 22)
    extra_bytes = (22 - 7) * 8 * 32 * 3 * 4
    assert peak_of_pieces(wide) - peak_of_pieces(narrow) < 4 * extra_bytes
    without_tiles = CausalVAE(TINY_VAE)
    with torch.no_grad(), LiveBytes() as counter:
        without_tiles.decode(wide)
    assert counter.peak > 2 * peak_of_pieces(wide)


def test_the_released_tiles_cut_a_long_clip_where_expected() -> None:
    seen: list[tuple[int, ...]] = []

    def record(tile: Tensor) -> Tensor:
        seen.append(tuple(tile.shape[2:]))
        return torch.empty(1, 32, 1 + (tile.shape[2] - 1) // 4, *(x // 8 for x in tile.shape[3:]))

    with torch.device("meta"):
        video = torch.empty(1, 3, 129, 720, 1280)
        shapes = [
            tuple(piece.shape[2:])
            for piece in iter_tiled(record, video, encode_plan(TilingConfig(), **RATIOS))
        ]
    assert shapes == [(13, 90, 160), (12, 90, 160), (8, 90, 160)]
    assert len(seen) == 3 * 4 * 7
    assert set(seen[:28]) == {(65, h, w) for h in (256, 144) for w in (256, 128)}


def test_dropout_turns_tiling_on_as_often_as_asked_and_repeats() -> None:
    vae = CausalVAE(TINY_VAE)

    def draws(seed: int) -> list[bool]:
        generator = torch.Generator().manual_seed(seed)
        found = []
        for _ in range(300):
            with vae.tiling_dropout(TINY_TILING, 0.3, generator) as is_tiled:
                assert is_tiled == (vae.tiling is not None)
                found.append(is_tiled)
        return found

    first = draws(0)
    assert vae.tiling is None
    assert first == draws(0) != draws(1)
    assert 60 < sum(first) < 120


def test_dropout_restores_what_was_set_even_after_an_error() -> None:
    vae = CausalVAE(TINY_VAE)
    vae.enable_tiling(TINY_TILING)

    def step_that_fails() -> None:
        with vae.tiling_dropout(TINY_TILING, 0.0, torch.Generator()):
            raise RuntimeError(f"inside, with {vae.tiling}")

    with pytest.raises(RuntimeError, match="inside, with None"):
        step_that_fails()
    assert vae.tiling == TINY_TILING


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 64, "stride_height": 65}, "stride_height must lie in"),
        ({"num_frames": 64, "stride_num_frames": 16}, "stride_num_frames must lie in"),
    ],
)
def test_strides_outside_the_tile_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TilingConfig.model_validate(fields)


def test_tiles_that_are_not_whole_in_the_latent_are_refused() -> None:
    with pytest.raises(ValueError, match="stride_num_frames must be a multiple of 4, got 50"):
        CausalVAE(TINY_VAE).enable_tiling(TilingConfig(stride_num_frames=50))
