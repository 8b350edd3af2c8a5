"""Runs the passes of the walk: in this process, or on a Ray cluster. Ray is imported in here only.

The one door is `make_engine`; Ray is loaded when the Ray engine is asked for and not before.
"""

from typing import Literal

from pipeline.engine.address import wanted_address
from pipeline.engine.config import EngineConfig
from pipeline.engine.inline import InlineEngine
from pipeline.engine.progress import Progress
from pipeline.engine.work import Engine
from schemas.ray_authentication import choose_authentication

EngineName = Literal["ray", "inline"]


def make_engine(name: EngineName, config: EngineConfig, *, output: str | None = None) -> Engine:
    """An engine to be used as a context manager. `output`: where free disk is watched.

    The Ray engine joins or starts its cluster on entering; raises EngineError when it cannot.
    """
    progress = Progress(config.progress_interval_s, output)
    if name == "inline":
        return InlineEngine(config, progress)
    choose_authentication(wanted_address(config))  # before Ray is imported
    from pipeline.engine.ray_engine import RayEngine

    return RayEngine(config, progress)
