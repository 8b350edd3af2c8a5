"""What a run computes, as plain values: a checkpoint is resumed by a run of the same only."""

import json
from typing import Any

from modeling.train.config import TrainConfig
from modeling.train.stream import BatchStream
from modeling.train.task import Task

# Settings that change where, how often or how fast, but not what is computed.
_NOT_IDENTITY: dict[str, Any] = {
    "steps": True,
    "max_bad_steps": True,
    # The plan's hash has the data, fingerprints have the networks.
    "data": {"shards", "weights", "tag_weights", "verify", "loader"},
    "dit": {"vae": True, "distill": {"teacher": True}},
    "compute": True,
    "parallel": True,
    "checkpoint": True,
    "log": True,
    "preview": True,
}


def run_identity(config: TrainConfig, task: Task, stream: BatchStream) -> dict[str, Any]:
    other = "vae" if config.model == "dit" else "dit"
    settings = config.model_dump(mode="json", exclude=_NOT_IDENTITY)
    del settings[other]
    # As JSON gives it back, so that what is read compares equal to what is made.
    identity: dict[str, Any] = json.loads(
        json.dumps(
            {
                **settings,
                **task.identity(),
                "data.plan_hash": stream.plan_hash,
                "compute.precision": config.compute.precision,
            }
        )
    )
    return identity
