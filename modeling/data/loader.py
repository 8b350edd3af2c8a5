"""Batches of an endless sequence of epochs, decoded ahead in threads, in the plan's order.

Nothing in here has state worth saving: a batch carries the PlanState that follows it, and a loader
that starts from that state gives the same batches as one that never stopped, at any number of
ranks and threads.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from modeling.caption_text import CaptionTextConfig, caption_text, drops_text
from modeling.data.batch_size import PlanConfig
from modeling.data.corpus import ShardCorpus
from modeling.data.decode import Decoder
from modeling.data.draw import whole_number
from modeling.data.errors import DataError, SampleError
from modeling.data.pixel_reader import PixelReader
from modeling.data.plan import EpochPlan, PlanState, StepPlan
from modeling.data.samples import ReadSample, SampleReader, SampleRequest
from modeling.data.threads import DaemonPool
from modeling.data.view import ViewConfig
from schemas.base import StrictModel
from schemas.tier import Bucket

_logger = logging.getLogger(__name__)
_KEPT = 2  # spent batches: the caller may still hold one of them


class DataLoaderConfig(StrictModel):
    """How batches are made; nothing in here changes what is in them, but for bad samples."""

    decoder: Decoder = "pyav"
    num_threads: Annotated[int, Field(ge=1)] = 4  # per rank
    prefetch_steps: Annotated[int, Field(ge=1)] = 2
    pin_memory: bool = False
    timeout_s: Annotated[float, Field(gt=0)] = 300.0  # for a batch whose step waits for it
    max_replaced_share: Annotated[float, Field(ge=0, le=1)] = 0.01  # of the samples of a rank
    replaced_grace: Annotated[int, Field(ge=0)] = 8  # that many bad samples never stop a run


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's part of one step.

    `draw_keys` names each sample's random numbers: its key, and its number where a step holds a
    sample more than once.
    """

    step: int  # counted over all epochs
    bucket: Bucket
    tensors: Mapping[str, Tensor]
    ragged: Mapping[str, tuple[Tensor, ...]]
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    draw_keys: tuple[str, ...]
    fps_B: Tensor  # 0 for images
    replaced: int  # bad samples that others stand in for
    wait_s: float  # how long the caller waited
    next_state: PlanState

    @property
    def is_image(self) -> bool:
        return self.bucket.num_frames == 1

    @property
    def pixels_BCTHW(self) -> Tensor:  # noqa: N802 - a shape suffix
        """uint8, RGB. Raises KeyError for latent shards."""
        return self.tensors["pixels"]


@dataclass(frozen=True, slots=True)
class _Read:
    sample: ReadSample
    text: str
    replaced: int


@dataclass(frozen=True, slots=True)
class _Pending:
    step: int
    bucket: Bucket
    tensors: dict[str, Tensor]
    draw_keys: tuple[str, ...]
    reads: list[Future[_Read]]
    next_state: PlanState


class SampleLoader:
    """Raises DataError, while it is made and while it runs, and never waits without an end."""

    def __init__(
        self,
        corpus: ShardCorpus,
        plan: PlanConfig,
        *,
        view: ViewConfig | None = None,
        config: DataLoaderConfig | None = None,
        captions: CaptionTextConfig | None = None,
        rank: int = 0,
        world_size: int = 1,
        reader: SampleReader | None = None,
    ) -> None:
        self.corpus = corpus
        self.plan_config = plan
        self.view = view or ViewConfig()
        self.config = config or DataLoaderConfig()
        self.captions = captions or CaptionTextConfig()
        self._rank, self._world_size = rank, world_size
        self._reader = reader or PixelReader(
            corpus, self.view, seed=plan.seed, decoder=self.config.decoder
        )
        first = self.epoch_plan(0)
        first.check_split(world_size)
        self.plan_hash = first.plan_hash
        self._pool = DaemonPool(self.config.num_threads)
        self._planner = DaemonPool(1)
        self._num_read = self._num_replaced = 0

    def epoch_plan(self, epoch: int) -> EpochPlan:
        return EpochPlan(self.corpus, self.plan_config, epoch, self.view)

    def batches(self, state: PlanState | None = None) -> Iterator[Batch]:
        """Batches of this rank from a state on, without end."""
        steps = self._steps(state or PlanState())
        waiting: deque[Future[_Pending]] = deque()
        for _ in range(self.config.prefetch_steps + 1):
            waiting.append(self._begin(steps))
        spent: deque[Batch] = deque()
        while True:
            batch = self._finish(waiting.popleft())
            spent.append(batch)
            waiting.append(self._begin(steps, spent.popleft() if len(spent) > _KEPT else None))
            yield batch

    def close(self) -> None:
        self._pool.close()  # first: the planner may wait for it
        self._planner.close()

    def _begin(
        self, steps: Iterator[tuple[EpochPlan, int]], spent: Batch | None = None
    ) -> Future[_Pending]:
        """Plan the next step and start its reads, on a thread of its own.

        The caller's thread launches the training. Were it to start the reads, or to be the last
        to let go of a spent batch, whose every tensor gives up the interpreter lock as it is
        freed, the threads that read would hold it up.
        """

        def begin() -> _Pending:
            nonlocal spent
            spent = None
            return self._start(*next(steps))

        return self._planner.submit(begin)

    def _steps(self, state: PlanState) -> Iterator[tuple[EpochPlan, int]]:
        """The endless walk over steps; each epoch is planned while the one before runs."""
        plan, first = self.epoch_plan(state.epoch), state.step_in_epoch
        if first >= plan.num_steps:
            raise DataError(
                "resume",
                f"the state says step {first} of an epoch of {plan.num_steps}",
                "resume with the data and the plan that it was saved with",
            )
        while True:
            following = self._pool.submit(partial(self.epoch_plan, plan.epoch + 1))
            for number in range(first, plan.num_steps):
                yield plan, number
            plan, first = following.result(self.config.timeout_s), 0

    def _start(self, plan: EpochPlan, number: int) -> _Pending:
        step_plan = plan.step(number)
        step = plan.epoch * plan.num_steps + number
        part = step_plan.of_rank(self._rank, self._world_size)
        draw_keys = self._draw_keys(step_plan)[part]
        indices = step_plan.sample_indices[part].tolist()
        tensors = self._reader.empty(step_plan.bucket, len(indices))
        if self.config.pin_memory:  # allocated so: `pin_memory()` would copy what is not there yet
            tensors = {n: torch.empty_like(each, pin_memory=True) for n, each in tensors.items()}
        reads = []
        for position, (index, draw_key) in enumerate(zip(indices, draw_keys, strict=True)):
            request = SampleRequest(index, draw_key, step, step_plan.bucket)
            into = {name: tensor[position] for name, tensor in tensors.items()}
            reads.append(self._pool.submit(partial(self._read, plan, request, into)))
        state = plan.state_at(number + 1)
        return _Pending(step, step_plan.bucket, tensors, draw_keys, reads, state)

    def _draw_keys(self, step_plan: StepPlan) -> tuple[str, ...]:
        times: dict[str, int] = {}
        keys = []
        for index in step_plan.sample_indices.tolist():
            key = self.corpus.key(index)
            times[key] = times.get(key, 0) + 1
            keys.append(key if times[key] == 1 else f"{key}#{times[key]}")
        return tuple(keys)

    def _read(self, plan: EpochPlan, request: SampleRequest, into: Mapping[str, Tensor]) -> _Read:
        """One sample, or the next good one of a fixed sequence of its bucket."""
        index, error = request.index, SampleError("")
        for attempt in range(self.config.replaced_grace + 1):
            try:
                sample = self._reader.read(
                    SampleRequest(index, request.draw_key, request.step, request.shape), into
                )
            except SampleError as bad:
                error = bad
                place = self.corpus.place(index)
                _logger.warning("%s: %s %s; replaced", place.shard, place.key, bad)
                others = plan.samples(request.shape)
                choice = whole_number(
                    len(others),
                    seed=self.plan_config.seed,
                    key=request.draw_key,
                    step=request.step,
                    stream=f"replacement {attempt}",
                )
                index = int(others[choice])
                continue
            text = self._text(sample, request)
            return _Read(sample, text, attempt)
        raise DataError(
            f"bucket {request.shape.name}",
            f"{self.config.replaced_grace + 1} samples in a row are bad, the last: {error}",
            "check the shards with `python -m pipeline verify`",
        )

    def _text(self, sample: ReadSample, request: SampleRequest) -> str:
        seed, key, step = self.plan_config.seed, request.draw_key, request.step
        if sample.text is None:
            return caption_text(sample.caption, self.captions, seed=seed, key=key, step=step)
        is_dropped = drops_text(self.captions, seed=seed, key=key, step=step)
        return "" if is_dropped else sample.text

    def _finish(self, beginning: Future[_Pending]) -> Batch:
        start = time.monotonic()
        try:
            pending = beginning.result(self.config.timeout_s)
        except TimeoutError as error:
            raise DataError(
                "the plan of a step",
                f"was not made within {self.config.timeout_s:g} s",
                "raise timeout_s",
            ) from error
        reads = []
        for future, draw_key in zip(pending.reads, pending.draw_keys, strict=True):
            left_s = max(0.0, start + self.config.timeout_s - time.monotonic())
            try:
                reads.append(future.result(left_s))
            except TimeoutError as error:
                raise DataError(
                    f"sample {draw_key}",
                    f"was not read within {self.config.timeout_s:g} s",
                    "check the storage, or raise timeout_s",
                ) from error
        samples = [read.sample for read in reads]
        replaced = sum(read.replaced for read in reads)
        self._count(len(reads), replaced)
        return Batch(
            step=pending.step,
            bucket=pending.bucket,
            tensors=pending.tensors,
            ragged={
                name: tuple(sample.ragged[name] for sample in samples) for name in samples[0].ragged
            },
            captions=tuple(read.text for read in reads),
            keys=tuple(sample.key for sample in samples),
            draw_keys=pending.draw_keys,
            fps_B=torch.tensor([sample.fps for sample in samples]),
            replaced=replaced,
            wait_s=time.monotonic() - start,
            next_state=pending.next_state,
        )

    def _count(self, num_read: int, num_replaced: int) -> None:
        self._num_read += num_read
        self._num_replaced += num_replaced
        allowed = self.config.max_replaced_share * self._num_read
        if self._num_replaced > max(self.config.replaced_grace, allowed):
            raise DataError(
                "shards",
                f"{self._num_replaced} of {self._num_read} samples are bad, "
                f"{self.config.max_replaced_share:.2%} are allowed",
                "check the shards with `python -m pipeline verify`",
            )
