"""A small tier on disk, a desk on it, and a server of that desk."""

import dataclasses
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from pipeline.config import PipelineConfig, load_config
from pipeline.review.access import Gate
from pipeline.review.desk import Desk
from pipeline.review.server import build_app
from pipeline.storage import Store
from tests.media_files import moving_frames, write_video
from tests.pipeline.pack.conftest import PACK, Output, add
from tests.pipeline.tier.tables import ClipMaker

SMALL = ("tiers.tier-1.size=[32, 32]", "tiers.tier-1.frames=[5, 9]")
NUM_CLIPS = 6


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = moving_frames(12 * NUM_CLIPS, 48, 96, seed=1)
    return write_video(tmp_path_factory.mktemp("review") / "film.mp4", frames)


@pytest.fixture(scope="session")
def config() -> PipelineConfig:
    return load_config(None, SMALL)


@pytest.fixture
def output(tmp_path: Path, film: Path, config: PipelineConfig) -> Output:
    """Six clips in three concepts, each a little further above the limit of speed."""
    return tables_at(tmp_path / "out", film, config)


@pytest.fixture(scope="session")
def packed_once(
    tmp_path_factory: pytest.TempPathFactory, film: Path, config: PipelineConfig
) -> Output:
    output = tables_at(tmp_path_factory.mktemp("packed"), film, config)
    output.run()
    return output


@pytest.fixture
def packed(tmp_path: Path, packed_once: Output) -> Output:
    """The same with shards; a copy of its own for every test."""
    shutil.copytree(packed_once.store.location, tmp_path / "out")
    return dataclasses.replace(packed_once, store=Store(str(tmp_path / "out")))


def tables_at(folder: Path, film: Path, config: PipelineConfig) -> Output:
    maker = ClipMaker()
    for number in range(NUM_CLIPS):
        add(
            maker,
            film,
            start=12 * number,
            num_frames=12,
            size_WH=(96, 48),
            cluster=number % 3,
            motion={"speed": 0.25 + 0.5 * number},
        )
    store = Store(str(folder))
    return Output(store, maker.write(store), config.tiers, PACK)


@pytest.fixture
def open_desk(config: PipelineConfig) -> Callable[[Output], Desk]:
    return lambda output: Desk.open(output.store, output.tables, config, "tier-1")


@contextmanager
def served(
    desk: Desk, *, token: str | None = None, port: int = 0, report: bytes = b"the report"
) -> Iterator[str]:
    """The address of the desk, for the time of the block."""
    app = Gate(build_app(desk, lambda: report), token)
    config = uvicorn.Config(app, port=port, log_level="error", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(30)
