"""A cluster of three nodes that loses one midway ends with the same rows."""

import threading
import time
import warnings
from pathlib import Path

import pytest

from pipeline.engine import make_engine
from pipeline.engine.config import EngineConfig
from pipeline.stage import Resources
from tests.pipeline.engine import doubling

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_lost_node_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    output = str(tmp_path)
    items = [f"n-{i}" for i in range(120)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own modules
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        try:
            nodes = [cluster.add_node(num_cpus=2, object_store_memory=100 << 20) for _ in range(3)]
            config = EngineConfig(address=cluster.address)

            def lose() -> None:
                deadline = time.monotonic() + 120
                while len(doubling.table(output).done_keys()) < 6:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                cluster.remove_node(nodes[-1], allow_graceful=False)

            loser = threading.Thread(target=lose, daemon=True)
            with make_engine("ray", config, output=output) as engine:
                loser.start()
                report = engine.run(
                    doubling.make_pass(
                        output,
                        items,
                        delay_s=0.25,
                        num_workers=3,
                        resources=Resources(num_cpus=1),
                    )
                )
                loser.join()
                alive = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
        finally:
            cluster.shutdown()  # type: ignore[no-untyped-call]
    assert doubling.rows(output) == doubling.expected(items)
    assert report.num_failed == 0
    assert alive == 2
