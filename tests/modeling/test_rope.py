import torch

from modeling.dit_layers import sinusoidal_embedding
from modeling.rope import apply_rope, rope_table
from tests.modeling.random_networks import draw


def test_the_table_has_the_published_values() -> None:
    table = rope_table((2, 3, 4), (16, 56, 56), theta=256.0)
    assert table.cos_NE.shape == (24, 128)
    columns = [0, 2, 15, 16, 18, 71, 72, 127]
    cos = [0.5403023, 0.8775826, 0.9999695, -0.4161468, -0.0698175, 0.9999546, -0.9899925, 0.999898]
    sin = [0.841471, 0.4794255, 0.0078124, 0.9092974, 0.9975598, 0.0095234, 0.14112, 0.0142848]
    torch.testing.assert_close(table.cos_NE[-1, columns], torch.tensor(cos), atol=1e-6, rtol=0)
    torch.testing.assert_close(table.sin_NE[-1, columns], torch.tensor(sin), atol=1e-6, rtol=0)


def test_the_timestep_embedding_has_the_published_values() -> None:
    expected = [-0.6832287, 0.2850188, -0.3310244, -0.7302045, -0.9436222, 0.0469968]
    found = sinusoidal_embedding(torch.tensor([437.5]))[0, [0, 1, 64, 128, 192, 255]]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)


def test_scores_depend_on_the_distance_only() -> None:
    """The product of a query and a key moved together along an axis stays the same."""
    table = rope_table((4, 5, 6), (4, 6, 6), theta=256.0)
    q_E, k_E = draw(16, seed=1, dtype=torch.float64), draw(16, seed=2, dtype=torch.float64)
    q, k = (apply_rope(x.expand(1, 1, 120, 16), table)[0, 0].view(4, 5, 6, 16) for x in (q_E, k_E))
    for step_T, step_H, step_W in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 1, 3)):
        here = q[0, 0, 0] @ k[1, 2, 1]
        moved = q[step_T, step_H, step_W] @ k[1 + step_T, 2 + step_H, 1 + step_W]
        torch.testing.assert_close(here, moved, atol=1e-6, rtol=0)


def test_tokens_after_the_table_do_not_turn() -> None:
    table = rope_table((1, 2, 2), (4, 6, 6), theta=256.0)
    x_BHNE = draw(2, 3, 7, 16)
    turned = apply_rope(x_BHNE, table)
    assert torch.equal(turned[:, :, 4:], x_BHNE[:, :, 4:])
    assert torch.equal(turned[:, :, 0], x_BHNE[:, :, 0])
    assert not torch.equal(turned[:, :, 1], x_BHNE[:, :, 1])


def test_half_precision_is_rounded_once() -> None:
    table = rope_table((3, 4, 5), (4, 6, 6), theta=256.0)
    x_BHNE = draw(1, 2, 60, 16).bfloat16()
    assert torch.equal(apply_rope(x_BHNE, table), apply_rope(x_BHNE.float(), table).bfloat16())
