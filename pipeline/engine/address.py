"""Which Ray to join, and how its processes know each other. Settled before Ray is imported.

Ray reads the way of authentication once, at import. Left to itself it writes a token into the home
folder; from then on one half of its commands asks for the token and the other does not send it.
"""

import json
import os
import secrets
import sys
from pathlib import Path
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


def choose_authentication(address: str) -> None:
    """Set RAY_AUTH_MODE for this process and its children, unless it is set.

    A Ray of our own gets a token that lives in their environment only. A running one is met as
    `ray start` left it: by token where there is one, else without.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    if address == "local":
        if "ray" in sys.modules:  # it has read its choice already: none
            os.environ["RAY_AUTH_MODE"] = "disabled"
            return
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        return
    has_token = (Path.home() / ".ray" / "auth_token").exists() or any(
        name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    )
    os.environ["RAY_AUTH_MODE"] = "token" if has_token else "disabled"
