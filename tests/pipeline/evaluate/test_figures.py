"""Intervals with known widths."""

import numpy as np
import pytest

from pipeline.evaluate.figures import (
    OURS,
    EvaluationError,
    mean_figure,
    median_figure,
    share_figure,
)


def test_the_interval_of_a_mean_holds_it_and_has_the_width_of_theory() -> None:
    values = np.random.default_rng(0).normal(5, 1, 400).tolist()
    few = mean_figure("a", "b", OURS, values[:20], "clips")
    many = mean_figure("a", "b", OURS, values, "clips")
    assert many.low < many.value < many.high
    assert many.value == pytest.approx(np.mean(values))
    assert many.high - many.low < few.high - few.low
    assert many.high - many.low == pytest.approx(2 * 1.96 / np.sqrt(400), rel=0.15)


def test_the_interval_of_a_share_has_the_width_of_theory() -> None:
    figure = share_figure("a", "b", OURS, [True] * 300 + [False] * 100, "clips")
    assert figure.value == 0.75
    width = 2 * 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert figure.high - figure.low == pytest.approx(width, rel=0.1)


def test_one_far_value_moves_the_mean_and_not_the_median() -> None:
    values = [1.0] * 20 + [1000.0]
    assert mean_figure("a", "b", OURS, values, "clips").value > 40
    median = median_figure("a", "b", OURS, values, "clips")
    assert (median.value, median.low, median.high) == (1, 1, 1)


def test_nothing_to_count_is_an_error_and_no_number() -> None:
    with pytest.raises(EvaluationError, match="a: the folder holds nothing to measure 'b' on"):
        share_figure("a", "b", OURS, [], "clips")
    with pytest.raises(EvaluationError, match="a: the folder holds nothing to measure 'b' on"):
        mean_figure("a", "b", OURS, [], "clips")
