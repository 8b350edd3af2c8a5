import random

import pytest
from sklearn.metrics import cohen_kappa_score

from pipeline.review.agreement import agreements, cohens_kappa
from tests.pipeline.review.makers import judgement


@pytest.mark.parametrize("seed", range(20))
def test_kappa_is_that_of_scikit_learn(seed: int) -> None:
    draw = random.Random(seed)
    words = ["approve", "reject", "other"][: 2 + seed % 2]
    first = [*words, *draw.choices(words, k=30)]
    second = [word if draw.random() < seed / 20 else draw.choice(words) for word in first]
    kappa = cohens_kappa(first, second)
    assert kappa == pytest.approx(cohen_kappa_score(first, second))


def test_kappa_by_hand() -> None:
    # 20 both yes, 5 and 10 apart, 15 both no: (0.7 - 0.5) / (1 - 0.5)
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohens_kappa(first, second) == pytest.approx(0.4)


def test_kappa_is_undefined_where_both_say_one_thing_only() -> None:
    assert cohens_kappa(["y", "y"], ["y", "y"]) is None
    assert cohens_kappa(["y", "y"], ["n", "n"]) == 0.0


def test_pairs_are_compared_on_what_both_judged() -> None:
    judged = [
        judgement(1, "Ada", "approve", criteria={"lighting": "good"}),
        judgement(2, "Ada", "reject", criteria={"lighting": "poor"}),
        judgement(3, "Ada", "reject"),
        judgement(1, "Bo", "approve", criteria={"lighting": "poor"}),
        judgement(2, "Bo", "reject"),
        judgement(4, "Bo", "reject"),
        judgement(9, "Cy", "reject"),
    ]
    verdict, lighting = agreements(judged)
    assert (verdict.question, verdict.reviewers, verdict.num_clips) == ("verdict", ("Ada", "Bo"), 2)
    assert (verdict.observed, verdict.kappa) == (1.0, 1.0)
    assert (lighting.question, lighting.num_clips, lighting.observed) == ("lighting", 1, 0.0)
