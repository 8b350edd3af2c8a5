"""One Ray for all engine tests that need it: starting one takes about ten seconds."""

import warnings
from collections.abc import Iterator

import pytest

from pipeline.engine import make_engine
from pipeline.engine.config import EngineConfig
from pipeline.engine.work import Engine


@pytest.fixture(scope="session")
def ray_engine() -> Iterator[Engine]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own imports
        with make_engine("ray", EngineConfig(num_workers=2)) as engine:
            yield engine
