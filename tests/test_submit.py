"""The job as Ray submits it: from a copy of the working directory, and from the folder itself."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.demo import local_head
from tests.media_files import moving_frames, write_video
from tests.survival import ROOT, assert_same_shards
from tests.walks import curate, manifest, write_config

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local_head(ROOT, Console(quiet=True)) as found:
        yield found


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    for number in range(2):
        frames = moving_frames(30, 96, 128, seed=50 + number, step_px=1)
        write_video(folder / f"{number}.mp4", frames)
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory, pool: Path, config: Path) -> Path:
    output = tmp_path_factory.mktemp("inline") / "run"
    curate(pool, output, config)
    return output


def submit(address: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """As a person types it in the project's folder, `--` included."""
    ray = str(Path(sys.executable).parent / "ray")
    return subprocess.run(
        [ray, "job", "submit", "--address", address, *arguments],
        cwd=ROOT,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("where", [("--working-dir", "."), ()], ids=["copy", "in-place"])
def test_a_submitted_job_writes_what_the_plain_command_writes(
    address: str,
    pool: Path,
    config: Path,
    inline: Path,
    tmp_path: Path,
    where: tuple[str, ...],
) -> None:
    output = tmp_path / "run"
    places = ["--input", str(pool), "--output", str(output), "--config", str(config)]
    done = submit(address, *where, "--", "python", "pipeline/run.py", "--tier", "1", *places)
    assert done.returncode == 0, done.stdout + done.stderr
    assert manifest(output)["totals"]["num_samples"] == 2
    assert_same_shards(output, inline)


def test_a_refused_job_fails_and_says_why(address: str, pool: Path, tmp_path: Path) -> None:
    places = ["--input", str(pool), "--output", str(tmp_path / "run"), "--set", "split.no=1"]
    done = submit(address, "--", "python", "pipeline/run.py", "--tier", "1", *places)
    assert done.returncode != 0
    assert "split.no" in done.stdout
