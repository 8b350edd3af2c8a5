"""Pool sizes: what fits, what grows, what is refused."""

import pytest

from pipeline.engine.errors import PlanError
from pipeline.engine.sizing import NodeRoom, plan_pools
from pipeline.engine.work import WorkerSpec
from pipeline.stage import Resources
from tests.pipeline.engine.doubling import Doubler


def spec(num_cpus: float, num_gpus: float = 0, num_workers: int | None = None) -> WorkerSpec:
    return WorkerSpec(Doubler, Resources(num_cpus=num_cpus, num_gpus=num_gpus), num_workers)


def plan(
    *specs: WorkerSpec,
    nodes: list[NodeRoom],
    num_parts: int = 1000,
    max_workers: int | None = None,
) -> tuple[int, ...]:
    return plan_pools("p", specs, nodes, num_parts=num_parts, max_workers=max_workers)


LAPTOP = NodeRoom(num_cpus=8, num_gpus=0, memory_bytes=1e9, num_cores=2)  # eight are logical
SERVER = NodeRoom(num_cpus=32, num_gpus=0, memory_bytes=1e11, num_cores=32)
GPU = NodeRoom(num_cpus=8, num_gpus=2, memory_bytes=1e11, num_cores=8)


def test_pools_grow_to_the_real_cores_and_no_further() -> None:
    assert plan(spec(1), spec(1), nodes=[LAPTOP]) == (2, 2)
    assert plan(spec(1), spec(1), nodes=[SERVER, SERVER]) == (32, 32)
    assert plan(spec(1), spec(0.25), nodes=[SERVER]) == (25, 28)  # 25 + 28 / 4 = 32
    assert plan(spec(1), nodes=[SERVER], num_parts=3) == (3,)
    assert plan(spec(1), nodes=[SERVER], max_workers=5) == (5,)


def test_a_gpu_pool_is_as_large_as_the_gpus_and_cpu_work_stays_off_their_nodes() -> None:
    assert plan(spec(1), spec(1, num_gpus=1), nodes=[SERVER, GPU])[1] == 2
    assert plan(spec(1, num_workers=32), spec(8, num_gpus=1), nodes=[GPU, SERVER]) == (32, 1)


@pytest.mark.parametrize(
    ("wanted", "nodes"),
    [
        (spec(1, num_gpus=1), [SERVER]),
        (spec(9), [LAPTOP]),
        (spec(1, num_workers=9), [LAPTOP]),
        (spec(20, num_workers=3), [SERVER, SERVER]),  # 64 CPUs, but one worker a node
        (spec(1), []),
    ],
)
def test_what_can_never_be_scheduled_is_refused(wanted: WorkerSpec, nodes: list[NodeRoom]) -> None:
    with pytest.raises(PlanError, match=r"cannot be scheduled.*the nodes offer.*add nodes"):
        plan(wanted, nodes=nodes)
