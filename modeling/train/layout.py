"""Where the processes of a run stand: data ranks x context ranks, and copies x shards."""

import os
from dataclasses import dataclass

from modeling.train.config import TrainConfig
from modeling.train.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """`context_ranks` neighbors share samples; `shard_ranks` neighbors hold one network."""

    num_processes: int = 1
    context_ranks: int = 1
    shard_ranks: int = 1

    @property
    def data_ranks(self) -> int:
        return self.num_processes // self.context_ranks

    @property
    def num_copies(self) -> int:
        return self.num_processes // self.shard_ranks

    def describe(self) -> str:
        """For a person."""
        parts = [f"{self.num_processes} processes divide the batch by {self.data_ranks}"]
        if self.context_ranks > 1:
            parts.append(f"each sample by {self.context_ranks}")
        weights = "the whole network on each"
        if self.shard_ranks > 1:
            copies = "1 copy" if self.num_copies == 1 else f"{self.num_copies} copies"
            weights = f"{copies} of weights, average and optimizer over {self.shard_ranks} each"
        return ", ".join([*parts, weights])


ONE_PROCESS = Layout()


def launched_processes() -> int:
    """How many processes the launcher (torchrun, Ray Train) has started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_per_node() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def find_layout(config: TrainConfig, num_processes: int, per_node: int) -> Layout:
    """Raise ConfigError for a layout that cannot be."""
    wanted = config.parallel
    context = wanted.context_ranks
    if num_processes == 1 and context == 1:
        return ONE_PROCESS
    if num_processes % context:
        raise ConfigError(
            f"parallel.context_ranks = {context} does not divide the {num_processes} processes"
        )
    if context > 1 and config.model != "dit":
        raise ConfigError(
            f"parallel.context_ranks = {context} is for a DiT: a VAE has no tokens to divide"
        )
    if wanted.data == "ddp":
        return Layout(num_processes, context)
    if config.model != "dit":
        raise ConfigError(
            f"parallel.data = {wanted.data!r} is for a DiT: a VAE is small, take 'ddp'"
        )
    if config.optim.optimizer == "muon":
        raise ConfigError(
            f"parallel.data = {wanted.data!r} divides matrices that Muon needs whole: "
            "take optim.optimizer = 'adamw', or parallel.data = 'ddp'"
        )
    if wanted.data == "fsdp":
        return Layout(num_processes, context, num_processes)
    shards = wanted.shard_ranks or per_node
    if num_processes % shards:
        raise ConfigError(
            f"parallel.shard_ranks = {shards} does not divide the {num_processes} processes"
        )
    if shards == 1:
        raise ConfigError(
            "parallel.data = 'hsdp' shards inside a node, and each has 1 process: set "
            "parallel.shard_ranks, or take 'ddp'"
        )
    return Layout(num_processes, context, shards)
