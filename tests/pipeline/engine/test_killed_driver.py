"""`kill -9` of the driver, then the same command again: finished parts stay, the bytes agree."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.pipeline.engine import doubling
from tests.pipeline.engine.drive import ITEMS
from tests.survival import plain_environment

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "name", ["inline", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])]
)
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, name: str) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    _run_until(name, killed, num_parts=4)
    before = _parts(killed)
    assert 4 <= len(before) < len(ITEMS) // 2
    _run(name, killed)
    _run("inline", whole)
    assert doubling.rows(str(killed)) == doubling.expected(ITEMS)
    after = _parts(killed)
    assert {path: after[path] for path in before} == before  # same inode, time and bytes
    assert {path: bytes_ for path, (*_, bytes_) in after.items()} == {
        path: bytes_ for path, (*_, bytes_) in _parts(whole).items()
    }


def _command(name: str, output: Path) -> list[str]:
    return [sys.executable, "-m", "tests.pipeline.engine.drive", name, str(output)]


def _run(name: str, output: Path) -> None:
    subprocess.run(
        _command(name, output),
        cwd=ROOT,
        env=plain_environment(),
        check=True,
        timeout=200,
        capture_output=True,
    )


def _run_until(name: str, output: Path, *, num_parts: int) -> None:
    """Start, wait for some finished parts, kill the driver, and end what it leaves behind."""
    with subprocess.Popen(
        _command(name, output),
        cwd=ROOT,
        env=plain_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as driver:
        deadline = time.monotonic() + 120
        while len(doubling.table(str(output)).done_keys()) < num_parts:
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        family = psutil.Process(driver.pid).children(recursive=True)
        os.kill(driver.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=15)  # Ray's own processes notice and leave
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=10)


def _parts(output: Path) -> dict[str, tuple[int, int, bytes]]:
    table = doubling.table(str(output))
    paths = {key: Path(table.store.full(table.part_path(key))) for key in table.done_keys()}
    return {
        key: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for key, path in paths.items()
    }
