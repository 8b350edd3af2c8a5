"""The batches of a run: corpus, plan and loader of each stage, from any step on."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from modeling.data.batch_size import PlanConfig
from modeling.data.corpus import ShardCorpus
from modeling.data.errors import DataError
from modeling.data.files import RangeReader
from modeling.data.latent_format import is_latent
from modeling.data.latent_reader import LatentReader, LatentShape
from modeling.data.loader import Batch, SampleLoader
from modeling.data.plan import EpochPlan, PlanState
from modeling.data.view import ViewConfig
from modeling.train.config import DataConfig, TrainConfig
from modeling.train.encoders import find_vae
from modeling.train.errors import ConfigError
from modeling.vae_config import VAEConfig
from schemas.base import fingerprint
from schemas.shard import ShardSample


@dataclass(frozen=True)
class StreamStage:
    """Steps from `start` on (counted over the run) that follow one plan."""

    name: str
    start: int
    plan: PlanConfig
    view: ViewConfig


def open_corpus(config: DataConfig, *, cache: Path | None = None) -> ShardCorpus:
    """Read and check the manifests; `cache` keeps checked indexes. Raises DataError."""
    corpus = ShardCorpus.open(config.shards, config.weights, verify=config.verify, cache=cache)
    if config.tag_weights is not None:
        weigh_by_tags(corpus, config.tag_weights)
    return corpus


def weigh_by_tags(corpus: ShardCorpus, tag_weights: Mapping[str, float]) -> None:
    """Multiply each sample's weight by those of its tags; without any of them it becomes 0."""
    files = RangeReader()
    found = np.zeros(len(corpus))
    for index in range(len(corpus)):
        place = corpus.place(index)
        text = files.read(place.shard, place.json_offset, place.json_size)
        tags = ShardSample.model_validate_json(text).provenance.tags
        chosen = [tag_weights[tag] for tag in (*tags, "*") if tag in tag_weights]
        found[index] = float(np.prod(chosen)) if chosen else 0.0
    files.close()
    if not found.any():
        raise DataError(
            "data.tag_weights", f"no sample has a tag of {sorted(tag_weights)}", "check the tags"
        )
    corpus.weight_N = corpus.weight_N * found
    corpus.manifest_hash = fingerprint(corpus.manifest_hash, dict(tag_weights))


def stream_stages(config: TrainConfig) -> list[StreamStage]:
    """A DiT has one stage; a VAE's follow one another."""
    plan = config.data.plan.model_copy(update={"seed": config.seed})
    if config.model == "dit":
        return [StreamStage("dit", 0, plan, config.data.view)]
    images = config.vae.image_share if config.vae.images_from == "shards" else None
    stages, start = [], 0
    for stage in config.vae.stages:
        changes: dict[str, object] = {}
        if images is not None:
            changes["image_share"] = images
        if stage.global_batch is not None:
            changes |= {"global_batch": stage.global_batch, "tokens_per_step": None}
        stages.append(StreamStage(stage.name, start, plan.model_copy(update=changes), stage.view))
        start += stage.steps or 0
    return stages


def stage_at(stages: Sequence[StreamStage], step: int) -> int:
    """Which stage a step belongs to."""
    return max(number for number, stage in enumerate(stages) if stage.start <= step)


def check_latent_run(corpus: ShardCorpus, config: TrainConfig) -> None:
    """Raises ConfigError for a run that latents do not suit."""
    if config.model == "vae":
        raise ConfigError("these shards hold latents: a VAE trains on pixels")
    view = config.data.view
    if view.placement == "random" or view.max_frame_interval > 1:
        raise ConfigError(
            "data.view draws a place or a frame interval, but these shards hold one view, encoded"
        )
    for bucket in corpus.buckets:
        if view.bucket(bucket) != bucket:
            raise ConfigError(
                f"data.view makes {view.bucket(bucket).name} of {bucket.name}, but these shards "
                "hold latents: train with the view that they were encoded with"
            )


def latent_shape(vae: VAEConfig) -> LatentShape:
    return lambda bucket: vae.latent_shape(bucket.num_frames, bucket.height, bucket.width)


class BatchStream:
    """Iterates over the batches of this rank; `state` is the data's position after each."""

    def __init__(
        self,
        corpus: ShardCorpus,
        config: TrainConfig,
        *,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self.corpus = corpus
        self.stages = stream_stages(config)
        self._data = config.data
        self._rank, self._world_size = rank, world_size
        loader = config.data.loader
        self._loader_config = loader.model_copy(
            update={"pin_memory": loader.pin_memory or pin_memory}
        )
        self.state = PlanState()
        self.is_latent = is_latent(corpus)
        self._latent_shape: LatentShape | None = None
        if self.is_latent:
            check_latent_run(corpus, config)
            self._latent_shape = latent_shape(find_vae(config.dit.vae).config)

    @property
    def plan_hash(self) -> str:
        """Of all stages: equal plans give equal batches."""
        return fingerprint([self.plan(number).plan_hash for number in range(len(self.stages))])

    def plan(self, number: int, epoch: int = 0) -> EpochPlan:
        stage = self.stages[number]
        return EpochPlan(self.corpus, stage.plan, epoch, stage.view)

    def batches(self, first_step: int) -> Generator[Batch]:
        """One batch per step, without end; the position follows from the step alone."""
        number = stage_at(self.stages, first_step)
        step = first_step
        while True:
            stage = self.stages[number]
            is_last = number + 1 == len(self.stages)
            end = None if is_last else self.stages[number + 1].start
            reader = None
            if self._latent_shape is not None:
                seed = stage.plan.seed
                reader = LatentReader(
                    self.corpus, self._latent_shape, seed=seed, dtype=torch.float32
                )
            loader = SampleLoader(
                self.corpus,
                stage.plan,
                view=stage.view,
                config=self._loader_config,
                captions=self._data.caption,
                rank=self._rank,
                world_size=self._world_size,
                reader=reader,
            )
            try:
                epoch, in_epoch = divmod(step - stage.start, self.plan(number).num_steps)
                state = self.plan(number, epoch).state_at(in_epoch)
                for batch in loader.batches(state):
                    self.state = batch.next_state
                    yield batch
                    step += 1
                    if step == end:
                        break
            finally:
                loader.close()
            number += 1
