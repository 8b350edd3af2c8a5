"""The whole walk on a Ray cluster that loses a worker and a node."""

import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.media_files import moving_frames, write_video
from tests.survival import assert_same_shards
from tests.test_survival_kill import SMALL_PARTS
from tests.walks import curate, write_config

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_config(tmp_path_factory.mktemp("config"))
    path.write_text(path.read_text() + SMALL_PARTS)
    return path


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    for number in range(8):
        frames = moving_frames(30, 96, 128, seed=50 + number, step_px=1)
        write_video(folder / f"{number}.mp4", frames)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pool: Path, config: Path) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    curate(pool, output, config)
    return output


def workers_here() -> list[psutil.Process]:
    """Actors of the Ray that this process started."""
    family = psutil.Process().children(recursive=True)
    return [one for one in family if "ray::WorkerHost" in " ".join(one.cmdline())]


def wait_until(is_time: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_time():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_lost_worker_and_a_lost_node_change_no_byte(
    pool: Path,
    config: Path,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    output = tmp_path / "run"
    lost: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own modules
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        try:
            nodes = [cluster.add_node(num_cpus=2, object_store_memory=100 << 20) for _ in range(3)]

            def lose() -> None:
                wait_until(lambda: any(output.glob("tables/embedding/*/_done/*.json")))
                wait_until(lambda: bool(workers_here()))
                workers_here()[0].send_signal(signal.SIGKILL)
                lost.append("worker")
                wait_until(lambda: any(output.glob("tables/text/*/_done/*.json")))
                cluster.remove_node(nodes[-1], allow_graceful=False)
                lost.append("node")

            loser = threading.Thread(target=lose, daemon=True)
            loser.start()
            address = f"engine.address={cluster.address!r}"
            record = curate(pool, output, config, engine="ray", overrides=(address,))
            loser.join()
        finally:
            ray.shutdown()
            cluster.shutdown()  # type: ignore[no-untyped-call]
    assert lost == ["worker", "node"]
    assert record.verdict == "succeeded"
    assert_same_shards(output, undisturbed)
