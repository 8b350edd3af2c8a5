from collections import Counter

import numpy as np
import pytest

from pipeline.config import PipelineConfig
from pipeline.review.assignment import Assignment
from pipeline.review.config import ReviewConfig
from pipeline.review.order import ORDERS, Candidate, Closest, closest_limits, in_order
from pipeline.tier.join import load_joined
from pipeline.tier.rules import Candidates
from tests.pipeline.pack.conftest import Output
from tests.pipeline.review.conftest import NUM_CLIPS


def candidate(clip_id: str, cluster: int | None, margin: float | None = None) -> Candidate:
    closest = None
    if margin is not None:
        closest = Closest(score="a.b", side="min", limit=0, value=margin, margin=margin)
    return Candidate(clip_id, cluster, closest)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_holds_every_clip_once(order: str) -> None:
    many = [candidate(str(n), n % 7, float(n)) for n in range(50)]
    found = in_order(many, order)  # type: ignore[arg-type]
    assert sorted(found) == sorted(one.clip_id for one in many)
    assert found == in_order(many[::-1], order)  # type: ignore[arg-type]


def test_each_concept_comes_before_any_comes_twice() -> None:
    many = [candidate(str(n), 0 if n < 40 else n) for n in range(45)]
    cluster_of = {one.clip_id: one.cluster for one in many}
    first = [cluster_of[clip_id] for clip_id in in_order(many, "concepts")]
    assert sorted(first[:6], key=str) == sorted([0, 40, 41, 42, 43, 44], key=str)


def test_the_closest_to_a_limit_come_first() -> None:
    many = [candidate("far", 0, 9.0), candidate("none", 0), candidate("near", 0, 0.1)]
    assert in_order(many, "thresholds") == ["near", "far", "none"]


def test_the_margin_counts_in_spreads_of_the_score(output: Output, config: PipelineConfig) -> None:
    candidates = Candidates(load_joined(output.store, output.tables))
    found = closest_limits(candidates, config.tiers["tier-1"])
    speeds = candidates.numbers("motion.speed")
    spread = np.subtract(*np.percentile(speeds, (75, 25)))
    row = int(np.argmin(speeds))
    closest = found[row]
    assert closest is not None
    assert (closest.score, closest.side, closest.limit) == ("motion.speed", "min", 0.2)
    assert closest.margin == pytest.approx((speeds[row] - 0.2) / spread)
    assert len(found) == NUM_CLIPS


def test_overlap_is_a_share_of_the_clips() -> None:
    assignment = Assignment(ReviewConfig(overlap=0.25, num_overlap=3))
    wanted = Counter(assignment.wanted(str(n)) for n in range(4000))
    assert set(wanted) == {1, 3}
    assert wanted[3] == pytest.approx(1000, abs=100)
    assert Assignment(ReviewConfig(overlap=0)).wanted("x") == 1
    assert Assignment(ReviewConfig(overlap=1)).wanted("x") == 2


def test_two_reviewers_never_see_one_clip_at_once_unless_both_shall() -> None:
    clips = [str(n) for n in range(20)]
    alone = Assignment(ReviewConfig(overlap=0))
    assert alone.next("Ada", clips, {}, 3) == clips[:3]
    assert alone.next("Bo", clips, {}, 3) == clips[3:6]
    assert alone.next("Ada", clips, {}, 3) == clips[:3]  # a reload
    both = Assignment(ReviewConfig(overlap=1))
    assert both.next("Ada", clips, {}, 3) == both.next("Bo", clips, {}, 3) == clips[:3]
    assert both.next("Cy", clips, {}, 3) == clips[3:6]


def test_a_judged_clip_is_done_and_an_old_lease_is_over() -> None:
    now = [0.0]
    assignment = Assignment(ReviewConfig(overlap=0), clock_s=lambda: now[0])
    assert assignment.next("Ada", ["a", "b"], {}, 1) == ["a"]
    assert assignment.next("Bo", ["a", "b"], {"b": {"Ada"}}, 2) == []
    now[0] = 601.0
    assert assignment.next("Bo", ["a", "b"], {"b": {"Ada"}}, 2) == ["a"]
    assignment.release("a", "Bo")
    assert assignment.next("Ada", ["a"], {}, 1) == ["a"]
