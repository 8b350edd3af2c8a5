"""`kill -9` of the job at many moments, then the same command again."""

import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from pipeline.pack.gc import collect_garbage
from pipeline.storage import Store
from tests.survival import (
    ROOT,
    assert_same_shards,
    command,
    error_lines,
    finished_parts,
    num_markers,
    plain_environment,
    run,
)
from tests.walks import curate, write_config, write_pool

SMALL_PARTS = """
[passes]
sources_per_part = 1
clips_per_part = 1

[ingest]
sources_per_part = 2
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_config(tmp_path_factory.mktemp("config"))
    path.write_text(path.read_text() + SMALL_PARTS)
    return path


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pool: Path, config: Path) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    curate(pool, output, config)
    return output


def kill_when(line: list[str], is_time: Callable[[], bool]) -> None:
    """Start the job; at the moment, kill its driver."""
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            line,
            cwd=ROOT,
            env=plain_environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as driver,
    ):
        deadline = time.monotonic() + 120
        while not is_time():
            if driver.poll() is not None:
                log.seek(0)
                pytest.fail(f"it ended before its moment came: {log.read()[-2000:]!r}")
            assert time.monotonic() < deadline
            time.sleep(0.002)
        family = psutil.Process(driver.pid).children(recursive=True)
        os.kill(driver.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=20)  # Ray's own processes notice and leave
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=10)


def moments(num_finished: int) -> list[int]:
    """After how many finished parts: one in each third of the run."""
    generator = random.Random(20)
    third = num_finished // 3
    return [generator.randrange(i * third, (i + 1) * third) for i in range(3)]


def has_finished(output: Path, num_parts: int) -> bool:
    return num_markers(output) > num_parts


def test_a_job_killed_again_and_again_ends_with_the_same_bytes(
    pool: Path, config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    line = command(pool, output, config)
    num_shards = len(list(undisturbed.glob("shards/*/*/*.tar")))
    times: list[Callable[[], bool]] = [
        partial(has_finished, output, moment) for moment in moments(num_markers(undisturbed))
    ]
    # The last one falls between the last shard and the manifest.
    times.append(lambda: len(list(output.glob("shards/*/*/*.tar"))) == num_shards)
    kept: dict[Path, tuple[int, int]] = {}
    for is_time in times:
        kill_when(line, is_time)
        found = finished_parts(output)
        assert {path: found.get(path) for path in kept} == kept
        kept = found
    done = run(line)
    assert (done.returncode, error_lines(done)) == (0, [])
    found = finished_parts(output)
    assert {path: found[path] for path in kept} == kept
    assert_same_shards(output, undisturbed)
    # A kill in the middle of a write leaves its temporary file, which no reader takes for a shard.
    collect_garbage(Store(str(output)), dry_run=False)
    assert list(output.rglob("*.tmp")) == []
    assert_same_shards(output, undisturbed)


@pytest.mark.ray
def test_a_killed_driver_of_a_ray_job_leaves_work_that_the_next_one_keeps(
    pool: Path, config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    line = command(pool, output, config, engine="ray")
    kill_when(line, partial(has_finished, output, num_markers(undisturbed) // 2))
    kept = finished_parts(output)
    done = run(line)
    assert (done.returncode, error_lines(done)) == (0, [])
    found = finished_parts(output)
    assert {path: found[path] for path in kept} == kept
    assert_same_shards(output, undisturbed)
