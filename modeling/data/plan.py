"""Which samples make up each step of an epoch: a pure function, without state or communication.

A plan follows from (seed, epoch, manifest hash, views, plan config) alone. At a step all ranks take
samples of one bucket; rank r of R takes the r-th of R equal slices of the step's samples, so that
any number of ranks that divides every batch sees the same global batches.

An epoch takes whole batches only, from an endless walk around each bucket's samples
(modeling/data/circle.py). What it leaves over comes first in the next epoch, so nothing is lost,
and no sample of an unweighted bucket comes twice in an epoch. All epochs have equally many steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modeling.data.batch_size import PlanConfig, fit_batch, tokens
from modeling.data.circle import Circle
from modeling.data.corpus import ShardCorpus
from modeling.data.draw import permutation
from modeling.data.errors import DataError
from modeling.data.view import ViewConfig
from schemas.base import StrictModel, fingerprint
from schemas.tier import Bucket

Indices = NDArray[np.int64]


class PlanState(StrictModel):
    """Where a run stands: the next step is `step_in_epoch` of `epoch`."""

    epoch: Annotated[int, Field(ge=0)] = 0
    step_in_epoch: Annotated[int, Field(ge=0)] = 0
    samples_seen: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The samples of one step, in global batch order."""

    bucket: Bucket
    sample_indices: Indices

    def of_rank(self, rank: int, world_size: int) -> slice:
        """The rank's part of the global batch."""
        size = len(self.sample_indices) // world_size
        return slice(rank * size, (rank + 1) * size)


@dataclass(frozen=True, slots=True)
class BucketPlan:
    """One bucket's part of this epoch. `num_points`: samples of a pass, repeats counted."""

    bucket: Bucket
    num_samples: int
    tokens_per_sample: int
    batch: int
    num_steps: int
    num_points: int
    num_repeated: int  # samples of this epoch beyond the first time
    num_never: int  # samples of weight 0

    @property
    def num_carried(self) -> int:
        """Points that an epoch leaves to the next."""
        return self.num_points - self.num_steps * self.batch


class EpochPlan:
    """The steps of one epoch. Raises DataError for a corpus and config that do not fit."""

    def __init__(
        self,
        corpus: ShardCorpus,
        config: PlanConfig,
        epoch: int,
        view: ViewConfig | None = None,
    ) -> None:
        view = view or ViewConfig()
        self.config = config
        self.epoch = epoch
        shapes = [view.bucket(source) for source in corpus.buckets]
        names = sorted({shape.name for shape in shapes})
        self.plan_hash = fingerprint(corpus.manifest_hash, config, [shape.name for shape in shapes])
        shape_of_source = np.array([names.index(shape.name) for shape in shapes])
        members = shape_of_source[corpus.bucket_N]
        num_points = _points_per_bucket(corpus, config, names, members)
        self.buckets: list[BucketPlan] = []
        self.left_out: dict[str, int] = {}  # samples of the buckets that no step takes
        self._samples: list[Indices] = []
        for number, name in enumerate(names):
            samples_N = np.flatnonzero(members == number)
            self._add_bucket(corpus, Bucket.from_name(name), samples_N, num_points[number])
        if not self.buckets:
            raise DataError("plan", "no bucket fills a batch", "lower the global batch")
        num_steps_K = [bucket.num_steps for bucket in self.buckets]
        order = permutation(
            sum(num_steps_K), seed=config.seed, key="", step=epoch, stream="order of steps"
        )
        self._bucket_of_step = np.repeat(np.arange(len(self.buckets)), num_steps_K)[order]
        starts = np.cumsum([0, *num_steps_K[:-1]])
        self._batch_of_step = order - starts[self._bucket_of_step]
        sizes = np.array([bucket.batch for bucket in self.buckets])[self._bucket_of_step]
        self._seen_before_step = np.concatenate([[0], np.cumsum(sizes)])

    @property
    def num_steps(self) -> int:
        return len(self._bucket_of_step)

    @property
    def num_samples(self) -> int:
        """Samples that one epoch takes, repeats counted."""
        return int(self._seen_before_step[-1])

    def step(self, number: int) -> StepPlan:
        """One step's samples. O(batch)."""
        which = int(self._bucket_of_step[number])
        bucket = self.buckets[which]
        first = int(self._batch_of_step[number]) * bucket.batch
        return StepPlan(bucket.bucket, self._samples[which][first : first + bucket.batch])

    def state_at(self, step: int) -> PlanState:
        """The state before a step of this epoch; past the last it is the next epoch's first."""
        epoch, step_in_epoch = self.epoch, step
        seen = self.epoch * self.num_samples + int(self._seen_before_step[step])
        if step == self.num_steps:
            epoch, step_in_epoch = epoch + 1, 0
        return PlanState(epoch=epoch, step_in_epoch=step_in_epoch, samples_seen=seen)

    def samples(self, shape: Bucket) -> Indices:
        """All that this epoch takes of a bucket."""
        return self._samples[[bucket.bucket for bucket in self.buckets].index(shape)]

    def check_split(self, world_size: int) -> None:
        """Raises DataError where a batch cannot be cut into equal parts for the ranks."""
        for bucket in self.buckets:
            if bucket.batch % world_size:
                raise DataError(
                    f"bucket {bucket.bucket.name}",
                    f"a batch of {bucket.batch} cannot be split over {world_size} ranks",
                    f"set batch_multiple to a multiple of {world_size} (this begins a new plan)",
                )

    def _add_bucket(
        self, corpus: ShardCorpus, shape: Bucket, samples_N: Indices, num_points: int
    ) -> None:
        config, name = self.config, shape.name
        fitted = fit_batch(shape, config, num_points) if num_points else None
        if fitted is None:
            self.left_out[name] = len(samples_N)
            return
        weight_N = _weights(corpus, config)[samples_N]
        circle = Circle(samples_N, weight_N, fitted.num_points, seed=config.seed, key=name)
        num_steps = fitted.num_points // fitted.batch
        num_taken = num_steps * fitted.batch
        taken = circle.take(self.epoch * num_taken, num_taken)
        mixed = permutation(
            num_taken, seed=config.seed, key=name, step=self.epoch, stream="samples"
        )
        self._samples.append(taken[mixed])
        self.buckets.append(
            BucketPlan(
                bucket=shape,
                num_samples=len(samples_N),
                tokens_per_sample=tokens(shape),
                batch=fitted.batch,
                num_steps=num_steps,
                num_points=fitted.num_points,
                num_repeated=num_taken - _num_different(taken, samples_N),
                num_never=int((weight_N == 0).sum()),
            )
        )


def _num_different(taken: Indices, samples_N: Indices) -> int:
    is_taken = np.zeros(samples_N[-1] + 1, np.bool_)
    is_taken[taken] = True
    return int(np.count_nonzero(is_taken))


def _weights(corpus: ShardCorpus, config: PlanConfig) -> NDArray[np.float64]:
    return corpus.weight_N if config.use_balance_weights else np.ones(len(corpus))


def _points_per_bucket(
    corpus: ShardCorpus, config: PlanConfig, names: Sequence[str], members: Indices
) -> list[int]:
    """How many samples of each bucket a pass holds: by weight, then by the share of images."""
    mass = np.bincount(members, _weights(corpus, config), minlength=len(names))
    if mass.sum() == 0:
        raise DataError("plan", "every balance weight is 0", "set use_balance_weights = false")
    points = mass * (len(corpus) / mass.sum())
    if config.image_share is not None:
        is_image = np.array([Bucket.from_name(name).num_frames == 1 for name in names])
        points *= _image_factor(config.image_share, points[is_image].sum(), is_image, points)
    return [max(1, round(count)) if count > 0 else 0 for count in points.tolist()]


def _image_factor(
    wanted: float,
    num_images: float,
    is_image: NDArray[np.bool_],
    points: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Videos keep their rate; images are repeated or thinned out to the wanted share."""
    num_videos = points.sum() - num_images
    if wanted > 0 and num_images == 0:
        raise DataError("image_share", f"{wanted} without images", "add a manifest of images")
    if wanted < 1 and num_videos == 0:
        raise DataError("image_share", f"{wanted} without videos", "add a manifest of videos")
    if wanted == 1:
        return is_image.astype(np.float64)
    factor = num_videos * wanted / (1 - wanted) / max(num_images, 1.0)
    return np.where(is_image, factor, 1.0)
