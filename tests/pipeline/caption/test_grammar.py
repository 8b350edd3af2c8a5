"""The draw itself, on made-up logits."""

import pytest
import torch

from pipeline.caption.grammar import RowPlan, draw, unpack_bits


def test_bits_are_unpacked_lowest_first() -> None:
    masks = torch.tensor([[0b101, -1], [0, 1]], dtype=torch.int32)
    bits = unpack_bits(masks, 40)
    assert bits.shape == (2, 40)
    assert bits[0, :4].tolist() == [True, False, True, False]
    assert bits[0, 32:].all()
    assert bits[1].nonzero().flatten().tolist() == [32]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7)])
def test_tokens_are_drawn_as_often_as_their_probability_says(
    temperature: float, top_p: float
) -> None:
    logits = torch.tensor([1.0, 0.0, float("-inf"), 2.0, -1.0])
    expected = (logits / temperature).softmax(0)
    if top_p < 1:
        expected = expected * torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0])  # 0.64 + 0.24 reach 0.7
        expected = expected / expected.sum()
    row = RowPlan(None, 0, temperature, top_p)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([draw(logits[None], [row], [generator]) for _ in range(4000)])
    shares = torch.bincount(drawn, minlength=5) / len(drawn)
    torch.testing.assert_close(shares, expected, atol=0.03, rtol=0.0)


def test_temperature_zero_takes_the_most_likely() -> None:
    row = RowPlan(None, 0, 0.0, 1.0)
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    assert draw(logits, [row, row], [torch.Generator()] * 2).tolist() == [1, 0]


def test_rows_are_drawn_as_if_they_were_alone() -> None:
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
    rows = [RowPlan(None, 5, 1.0, 0.9), RowPlan(None, 6, 0.5, 1.0)]
    fresh = [torch.Generator().manual_seed(row.seed) for row in rows]
    together = draw(logits, rows, fresh).tolist()
    alone = [
        draw(logits[[place]], [row], [torch.Generator().manual_seed(row.seed)]).item()
        for place, row in enumerate(rows)
    ]
    assert together == alone
