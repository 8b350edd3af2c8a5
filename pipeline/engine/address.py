"""Which Ray to join: told without importing it."""

import json
import os
from typing import Any

from pipeline.engine.config import EngineConfig

_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the driver of a submitted job


def wanted_address(config: EngineConfig) -> str:
    """The job's own cluster inside `ray job submit`, else what the config says."""
    return "auto" if _JOB_VARIABLE in os.environ else config.address


def job_runtime_env() -> dict[str, Any]:
    """What `ray job submit` was told to prepare for this job; empty outside a job."""
    text = os.environ.get(_JOB_VARIABLE)
    runtime_env: dict[str, Any] = (json.loads(text).get("runtime_env") or {}) if text else {}
    return runtime_env
