"""How many workers of each kind a cluster can hold. Arithmetic only: no Ray in here."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engine.errors import PlanError
from pipeline.engine.work import WorkerSpec
from pipeline.stage import Resources

_LAST_DIGIT = 1e-6  # fractions of a CPU are added up in binary


@dataclass(slots=True)
class NodeRoom:
    """What one node offers. `num_cores`: real ones, where they are known to be fewer."""

    num_cpus: float
    num_gpus: float
    memory_bytes: float
    num_cores: float

    def holds(self, need: Resources) -> bool:
        return (
            need.num_cpus <= self.num_cpus + _LAST_DIGIT
            and need.num_gpus <= self.num_gpus + _LAST_DIGIT
            and need.memory_bytes <= self.memory_bytes
        )

    def take(self, need: Resources) -> None:
        self.num_cpus -= need.num_cpus
        self.num_gpus -= need.num_gpus
        self.memory_bytes -= need.memory_bytes


def plan_pools(
    pass_name: str,
    specs: Sequence[WorkerSpec],
    nodes: Sequence[NodeRoom],
    *,
    num_parts: int,
    max_workers: int | None,
) -> tuple[int, ...]:
    """Workers per spec. Pools that name no size grow evenly until the nodes are full.

    No pool that names no size gets more workers than the cluster has real cores, than there are
    parts, or than `max_workers`. Raises PlanError, with numbers, for what can never be scheduled.
    """
    rooms = [NodeRoom(n.num_cpus, n.num_gpus, n.memory_bytes, n.num_cores) for n in nodes]
    counts = [0] * len(specs)
    for index, spec in enumerate(specs):
        wanted = 1 if spec.num_workers is None else spec.num_workers
        for _ in range(wanted):
            if not _place(spec.resources, rooms):
                raise PlanError(_refusal(pass_name, specs, nodes, counts, index))
            counts[index] += 1
    num_cores = max(1, int(sum(node.num_cores for node in nodes)))
    most = min(num_cores, num_parts, max_workers or num_cores)
    growing = [index for index, spec in enumerate(specs) if spec.num_workers is None]
    while growing := [index for index in growing if counts[index] < most]:
        index = min(growing, key=lambda one: (counts[one], one))
        if _place(specs[index].resources, rooms):
            counts[index] += 1
        else:
            growing.remove(index)
    return tuple(counts)


def _place(need: Resources, rooms: Sequence[NodeRoom]) -> bool:
    """Put one worker where the most CPUs are left; work without a GPU goes past GPU nodes."""
    fitting = [room for room in rooms if room.holds(need)]
    if not fitting:
        return False
    best = max(fitting, key=lambda room: (need.num_gpus > 0 or room.num_gpus == 0, room.num_cpus))
    best.take(need)
    return True


def _refusal(
    pass_name: str,
    specs: Sequence[WorkerSpec],
    nodes: Sequence[NodeRoom],
    counts: Sequence[int],
    index: int,
) -> str:
    need = specs[index].resources
    wanted = [1 if spec.num_workers is None else spec.num_workers for spec in specs]
    offers = ", ".join(
        f"{node.num_cpus:g} CPU / {node.num_gpus:g} GPU / {node.memory_bytes / 2**30:.1f} GiB"
        for node in nodes[:8]
    )
    more = f" and {len(nodes) - 8} more" if len(nodes) > 8 else ""
    return (
        f"pass {pass_name} cannot be scheduled: it needs at least {wanted} workers of its "
        f"{len(specs)} kinds, {list(counts)} fit; worker kind {index} needs {need.num_cpus:g} CPU "
        f"/ {need.num_gpus:g} GPU / {need.memory_bytes / 2**30:.1f} GiB each, the nodes offer "
        f"[{offers or 'nothing'}{more}]; add nodes, or lower num_workers or the worker's resources"
    )
