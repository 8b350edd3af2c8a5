"""The Ray engine: the same rows as without it, whatever happens to workers."""

import os
import random
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engine.errors import HaltError, PlanError, WorkerBugError
from pipeline.engine.work import Engine, Pass, WorkerSpec
from pipeline.stage import Resources
from tests.pipeline.engine import doubling

pytestmark = pytest.mark.ray


def test_every_item_gets_one_row(tmp_path: Path, ray_engine: Engine) -> None:
    items = [f"n-{i}" for i in range(40)]
    report = ray_engine.run(doubling.make_pass(str(tmp_path), items, log=tmp_path))
    assert doubling.rows(str(tmp_path)) == doubling.expected(items)
    assert (report.num_ok, report.num_failed, report.num_retries) == (40, 0, 0)
    assert report.num_workers == (2, 2)
    assert len(set((tmp_path / "workers").read_text().split())) == 2


def test_bad_items_get_failed_rows_and_their_neighbors_none(
    tmp_path: Path, ray_engine: Engine
) -> None:
    bad = {"exit-5": "worker_died", "hang-9": "timeout", "raise-14": "worker_error"}
    items = sorted(
        [*(f"n-{i}" for i in range(20) if i not in (5, 9, 14)), *bad],
        key=lambda item: int(item.split("-")[1]),
    )
    pass_ = doubling.make_pass(str(tmp_path), items, log=tmp_path, item_timeout_s=0.5)
    report = ray_engine.run(pass_)
    good = doubling.expected([item for item in items if item not in bad])
    wanted = sorted([*good, *((item, None, reason) for item, reason in bad.items())])
    assert doubling.rows(str(tmp_path)) == wanted
    assert report.reasons == dict.fromkeys(sorted(bad.values()), 1)
    tries = (tmp_path / "items").read_text().split()
    assert {item: tries.count(item) for item in bad} == {"exit-5": 4, "hang-9": 3, "raise-14": 4}


def test_workers_killed_at_random_leave_the_same_rows(tmp_path: Path, ray_engine: Engine) -> None:
    items = [f"n-{i}" for i in range(60)]
    pass_ = doubling.make_pass(str(tmp_path), items, log=tmp_path, delay_s=0.05)
    over = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        generator = random.Random(7)
        while len(killed) < 3 and not over.wait(generator.uniform(0.2, 0.6)):
            pids = (tmp_path / "workers").read_text().split()[-2:]
            if not pids:
                continue
            pid = int(generator.choice(pids))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    (tmp_path / "workers").touch()
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    report = ray_engine.run(pass_)
    over.set()
    killer.join()
    assert doubling.rows(str(tmp_path)) == doubling.expected(items)
    assert report.num_failed == 0
    assert killed
    assert report.num_retries >= 1


def test_a_bug_that_every_item_shows_stops_the_run(tmp_path: Path, ray_engine: Engine) -> None:
    with pytest.raises(WorkerBugError, match="every item raises KeyError"):
        ray_engine.run(doubling.make_pass(str(tmp_path), [f"raise-{i}" for i in range(400)]))
    assert doubling.rows(str(tmp_path)) == []


def test_a_worker_that_cannot_start_stops_the_run(tmp_path: Path, ray_engine: Engine) -> None:
    pass_ = doubling.make_pass(str(tmp_path), ["n-0"])
    workers = (WorkerSpec(doubling.NoWeights, Resources(num_cpus=0.1)), pass_.workers[1])
    broken = Pass(pass_.name, pass_.parts, workers, pass_.record_failure, 60.0)
    with pytest.raises(WorkerBugError, match=r"FileNotFoundError: weights\.onnx"):
        ray_engine.run(broken)


def test_a_worker_that_lost_its_server_stops_the_run_and_blames_no_item(
    tmp_path: Path, ray_engine: Engine
) -> None:
    pass_ = doubling.make_pass(str(tmp_path), ["halt-0", "halt-1"])
    with pytest.raises(HaltError, match="the server is gone"):
        ray_engine.run(pass_)
    workers = (WorkerSpec(doubling.NoServer, Resources(num_cpus=0.1)), pass_.workers[1])
    with pytest.raises(HaltError, match="the server is gone"):
        ray_engine.run(replace(pass_, workers=workers))
    assert doubling.rows(str(tmp_path)) == []


def test_a_plan_that_does_not_fit_is_refused_with_numbers(
    tmp_path: Path, ray_engine: Engine
) -> None:
    pass_ = doubling.make_pass(
        str(tmp_path), ["n-0"], resources=Resources(num_cpus=1, num_gpus=64), num_workers=1
    )
    with pytest.raises(PlanError, match=r"needs 1 CPU / 64 GPU .* the nodes offer \[.* / .* GPU"):
        ray_engine.run(pass_)


def test_a_pass_leaves_no_actor_behind(tmp_path: Path, ray_engine: Engine) -> None:
    before = _free_cpus()
    ray_engine.run(doubling.make_pass(str(tmp_path), ["n-0"], resources=Resources(num_cpus=1)))
    deadline = time.monotonic() + 10
    while _free_cpus() < before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _free_cpus() >= before


def _free_cpus() -> float:
    import ray

    return float(ray.available_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
