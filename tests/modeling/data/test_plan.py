from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.data.batch_size import PlanConfig, tokens
from modeling.data.errors import DataError
from modeling.data.plan import EpochPlan, PlanState
from modeling.data.view import ViewConfig
from schemas.tier import Bucket
from tests.modeling.data.shards import corpus_of

NAMES = ("f001_256x256", "f033_256x256", "f033_192x320", "f065_256x256")

counts = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 60), min_size=1)
seeds = st.integers(0, 2**40)


def taken(plan: EpochPlan) -> Counter[int]:
    """How often an epoch takes each sample."""
    steps = [plan.step(number).sample_indices.tolist() for number in range(plan.num_steps)]
    return Counter(index for step in steps for index in step)


@given(counts=counts, seed=seeds, batch=st.integers(1, 12), epoch=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_an_epoch_loses_nothing_and_doubles_nothing(
    counts: dict[str, int], seed: int, batch: int, epoch: int
) -> None:
    corpus = corpus_of(counts)
    config = PlanConfig(seed=seed, global_batch=batch)
    now, after = EpochPlan(corpus, config, epoch), EpochPlan(corpus, config, epoch + 1)
    assert now.num_steps == after.num_steps
    first, second = taken(now), taken(after)
    assert set(first.values()) == {1}
    carried = set(range(len(corpus))) - set(first)
    assert len(carried) == sum(bucket.num_carried for bucket in now.buckets)
    assert carried <= set(second)  # what an epoch leaves over comes in the next


@given(counts=counts, seed=seeds, multiple=st.sampled_from([1, 2, 4]))
@settings(max_examples=25, deadline=None)
def test_a_step_is_of_one_bucket_and_splits_over_ranks(
    counts: dict[str, int], seed: int, multiple: int
) -> None:
    corpus = corpus_of(counts)
    config = PlanConfig(
        seed=seed, tokens_per_step=9000, batch_multiple=multiple, small_buckets="repeat"
    )
    plan = EpochPlan(corpus, config, 0)
    plan.check_split(multiple)
    names = [bucket.name for bucket in corpus.buckets]
    for number in range(plan.num_steps):
        step = plan.step(number)
        in_bucket = corpus.bucket_N[step.sample_indices]
        assert set(in_bucket.tolist()) == {names.index(step.bucket.name)}
        parts = [step.sample_indices[step.of_rank(rank, multiple)] for rank in range(multiple)]
        assert {len(part) for part in parts} == {len(step.sample_indices) // multiple}
        assert np.array_equal(np.concatenate(parts), step.sample_indices)


@given(seed=seeds, batch=st.integers(1, 7), data=st.data())
@settings(max_examples=8, deadline=None)
def test_weights_are_met_exactly_over_epochs(seed: int, batch: int, data: st.DataObject) -> None:
    num = data.draw(st.integers(5, 40))
    weights = np.array(data.draw(st.lists(st.floats(0.1, 4), min_size=num, max_size=num)))
    corpus = corpus_of({"f033_256x256": num}, weights)
    config = PlanConfig(seed=seed, global_batch=batch, small_buckets="repeat")
    num_epochs = 40
    total: Counter[int] = Counter()
    for epoch in range(num_epochs):
        total += taken(EpochPlan(corpus, config, epoch))
    num_drawn = sum(total.values())
    wanted = weights / weights.sum() * num_drawn
    found = np.array([total[index] for index in range(num)])
    # Golden-ratio offsets are off by O(log n) draws at most; independent draws would be off by 15.
    assert np.abs(found - wanted).max() < 6


def test_every_part_of_the_key_changes_the_plan_and_nothing_else_does() -> None:
    corpus = corpus_of({"f033_256x256": 40, "f065_256x256": 40})

    def order(config: PlanConfig, epoch: int = 0) -> list[list[int]]:
        plan = EpochPlan(corpus, config, epoch)
        return [plan.step(number).sample_indices.tolist() for number in range(plan.num_steps)]

    base = PlanConfig(global_batch=4)
    assert order(base) == order(PlanConfig(global_batch=4))
    assert order(base) != order(base, epoch=1)
    assert order(base) != order(PlanConfig(global_batch=4, seed=1))
    other = EpochPlan(corpus_of({"f033_256x256": 41, "f065_256x256": 40}), base, 0)
    assert EpochPlan(corpus, base, 0).plan_hash == EpochPlan(corpus, base, 3).plan_hash
    assert (
        EpochPlan(corpus, base, 0).plan_hash
        != EpochPlan(corpus, PlanConfig(global_batch=2), 0).plan_hash
    )
    view = ViewConfig(max_frames=17)
    assert EpochPlan(corpus, base, 0).plan_hash != EpochPlan(corpus, base, 0, view).plan_hash
    assert len(EpochPlan(corpus, base, 0, view).buckets) == 1  # both lengths are cut to 17 frames
    assert other.num_samples == 80


def test_the_order_is_stable_across_versions() -> None:
    """Fails where an update of numpy would silently change what a resumed run reads."""
    plan = EpochPlan(corpus_of({"f033_256x256": 10}), PlanConfig(seed=3, global_batch=5), 2)
    assert [plan.step(number).sample_indices.tolist() for number in range(2)] == [
        [1, 0, 9, 8, 5],
        [3, 7, 2, 4, 6],
    ]


def test_batches_cost_about_the_same() -> None:
    counts = {"f001_256x256": 9000, "f033_256x256": 900, "f129_256x256": 300}
    config = PlanConfig(tokens_per_step=40_000, attention_cost=1 / 9216)
    plan = EpochPlan(corpus_of(counts), config, 0)
    assert [tokens(bucket.bucket) for bucket in plan.buckets] == [256, 2304, 8448]
    for bucket in plan.buckets:
        size = bucket.tokens_per_sample
        assert 0.8 < bucket.batch * (size + size**2 / 9216) / 40_000 <= 1


@pytest.mark.parametrize(("num_images", "wanted"), [(1000, 0.2), (20, 0.2), (300, 0.8), (9, 0.0)])
def test_the_share_of_images_is_met(num_images: int, wanted: float) -> None:
    corpus = corpus_of({"f001_256x256": num_images, "f033_256x256": 400})
    plan = EpochPlan(corpus, PlanConfig(global_batch=4, image_share=wanted), 0)
    found = taken(plan)
    share = sum(num for index, num in found.items() if index < num_images) / sum(found.values())
    assert share == pytest.approx(wanted, abs=0.01)
    assert sum(num for index, num in found.items() if index >= num_images) == 400


def test_a_weight_of_zero_is_never_drawn() -> None:
    weights = np.array([1.0, 0.0] * 10)
    plan = EpochPlan(corpus_of({"f033_256x256": 20}, weights), PlanConfig(global_batch=4), 0)
    assert {index % 2 for index in taken(plan)} == {0}
    assert plan.buckets[0].num_never == 10


def test_states_walk_through_epochs() -> None:
    plan = EpochPlan(corpus_of({"f033_256x256": 11}), PlanConfig(global_batch=3), 4)
    assert plan.state_at(0) == PlanState(epoch=4, step_in_epoch=0, samples_seen=36)
    assert plan.state_at(2) == PlanState(epoch=4, step_in_epoch=2, samples_seen=42)
    assert plan.state_at(3) == PlanState(epoch=5, step_in_epoch=0, samples_seen=45)


@pytest.mark.parametrize(
    ("small_buckets", "batch", "num_samples", "left_out"),
    [("shrink", 2, 2, {}), ("repeat", 8, 8, {}), ("drop", 0, 0, {"f065_256x256": 3})],
)
def test_small_buckets(
    small_buckets: str, batch: int, num_samples: int, left_out: dict[str, int]
) -> None:
    corpus = corpus_of({"f033_256x256": 16, "f065_256x256": 3})
    config = PlanConfig.model_validate(
        {"global_batch": 8, "batch_multiple": 2, "small_buckets": small_buckets}
    )
    plan = EpochPlan(corpus, config, 0)
    small = [bucket for bucket in plan.buckets if bucket.bucket.num_frames == 65]
    assert [bucket.batch for bucket in small] == ([batch] if batch else [])
    assert plan.num_samples == 16 + num_samples
    assert plan.left_out == left_out


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (PlanConfig(), "set exactly one of the two"),
        (PlanConfig(global_batch=4, tokens_per_step=9), "set exactly one of the two"),
        (PlanConfig(global_batch=6, batch_multiple=4), "6 is not a multiple of batch_multiple 4"),
        (PlanConfig(global_batch=64, small_buckets="error"), "16 samples do not fill a batch"),
        (PlanConfig(global_batch=64, batch_multiple=32), "16 samples do not fill a batch of 64"),
        (PlanConfig(global_batch=64, small_buckets="drop"), "no bucket fills a batch"),
        (PlanConfig(global_batch=4, image_share=0.5), "image_share: 0.5 without images"),
    ],
)
def test_what_cannot_be_planned_is_said_in_one_line(config: PlanConfig, line: str) -> None:
    with pytest.raises(DataError, match=line) as error:
        EpochPlan(corpus_of({"f033_256x256": 16}), config, 0)
    assert "\n" not in str(error.value)


def test_ranks_must_divide_the_batch() -> None:
    plan = EpochPlan(corpus_of({"f033_256x256": 16}), PlanConfig(global_batch=4), 0)
    with pytest.raises(DataError, match="a batch of 4 cannot be split over 3 ranks"):
        plan.check_split(3)


def test_all_weights_zero_is_an_error() -> None:
    corpus = corpus_of({"f033_256x256": 4}, np.zeros(4))
    with pytest.raises(DataError, match="every balance weight is 0"):
        EpochPlan(corpus, PlanConfig(global_batch=2), 0)
    assert (
        EpochPlan(corpus, PlanConfig(global_batch=2, use_balance_weights=False), 0).num_steps == 2
    )


@given(
    st.builds(
        Bucket,
        num_frames=st.integers(0, 40).map(lambda n: 4 * n + 1),
        height=st.integers(1, 80).map(lambda n: 16 * n),
        width=st.integers(1, 80).map(lambda n: 16 * n),
    ),
    st.builds(
        ViewConfig,
        max_frames=st.none() | st.integers(0, 20).map(lambda n: 4 * n + 1),
        area_side=st.none() | st.integers(1, 40).map(lambda n: 16 * n),
        crop_side=st.none() | st.integers(1, 20).map(lambda n: 16 * n),
        placement=st.sampled_from(["first", "random"]),
        max_frame_interval=st.integers(1, 8),
    ),
    st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_views_lie_inside_their_clips(source: Bucket, view: ViewConfig, step: int) -> None:
    drawn = view.draw(source, seed=0, key="a", step=step)
    assert drawn.shape == view.bucket(source)
    assert len(drawn.frames) == drawn.shape.num_frames
    assert drawn.frames[0] >= 0
    assert drawn.frames[-1] < source.num_frames
    height, width = drawn.scaled_HW
    assert drawn.shape.height + drawn.top <= height <= source.height
    assert drawn.shape.width + drawn.left <= width <= source.width
    assert 1 <= drawn.interval <= view.max_frame_interval
