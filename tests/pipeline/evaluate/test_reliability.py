import numpy as np
import pytest

from benchmarks.reliability import Judgements, write_line


def test_a_confidence_that_is_right_as_often_as_it_says_has_no_error() -> None:
    pairs = [(0.25, k % 4 == 0) for k in range(400)] + [(0.75, k % 4 != 0) for k in range(400)]
    judgements = Judgements.of(pairs)
    assert judgements.bins() == [(400, 0.25, 0.25), (400, 0.75, 0.75)]
    assert judgements.calibration_error() == 0


def test_the_error_is_the_mean_distance_weighted_by_counts() -> None:
    judgements = Judgements.of([(0.95, False)] * 30 + [(0.55, True)] * 10 + [(1.0, True)] * 60)
    # The highest bin holds 30 wrong and 60 right ones, the other one 10 right ones.
    says = (30 * 0.95 + 60) / 90
    assert judgements.calibration_error() == pytest.approx(
        0.9 * (says - 60 / 90) + 0.1 * (1 - 0.55)
    )


def test_a_written_line_lies_inside_the_photograph_and_changes_nothing_else() -> None:
    photo = np.random.default_rng(1).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    for seed in range(20):
        picture, line, text = write_line(photo, np.random.default_rng(seed))
        outside = np.ones(photo.shape[:2], bool)
        outside[line] = False
        assert text
        assert 0 < (~outside).sum() < outside.size
        np.testing.assert_array_equal(picture[outside], photo[outside])
