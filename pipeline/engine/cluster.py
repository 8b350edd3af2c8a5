"""Joins the cluster that a job runs on, or starts a small one of our own and ends it again."""

import logging
import os
from pathlib import Path
from typing import Any

import psutil
import ray

from pipeline.engine.address import job_runtime_env, wanted_address
from pipeline.engine.config import EngineConfig
from pipeline.engine.crew import living_nodes
from pipeline.engine.errors import EngineError
from pipeline.engine.sizing import NodeRoom

logger = logging.getLogger(__name__)

_MIN_LOGICAL_CPUS = 8  # actors hold fractions; pools are sized by real cores
_END_TIMEOUT_S = 10.0
_SELF_SHIPPED = ("schemas", "pipeline")
# For the whole job: an environment per actor would cost each of them a slow start.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Cluster:
    """A connection to Ray. Closing it ends only what it started, by process id."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._joined = False
        self._own: list[psutil.Process] = []

    def connect(self) -> None:
        """Join or start. A Ray that this process already uses is used as it is."""
        address = wanted_address(self._config)
        if ray.is_initialized():
            return
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
        if address == "local":
            options["num_cpus"] = max(_MIN_LOGICAL_CPUS, _num_cores_here())
            options["object_store_memory"] = self._config.object_store_bytes
            options["include_dashboard"] = False
            os.environ.update(_ONE_THREAD)  # inherited by its workers
        else:
            options["runtime_env"] = _complete(job_runtime_env())
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        try:
            ray.init(address=address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise EngineError(f"no Ray at address {address!r}: {line}") from error
        self._joined = True
        if address == "local":
            children = psutil.Process().children(recursive=True)
            self._own = [child for child in children if child.pid not in before]

    def close(self) -> None:
        """Leave; end our own Ray and make sure of it (its servers can outlive a SIGTERM)."""
        if self._joined:
            ray.shutdown()
            self._joined = False
        _, alive = psutil.wait_procs(self._own, timeout=_END_TIMEOUT_S if self._own else 0)
        for process in alive:
            logger.warning("ending Ray process %d by force", process.pid)
            process.kill()
        psutil.wait_procs(alive, timeout=_END_TIMEOUT_S)
        self._own = []

    def nodes(self) -> list[NodeRoom]:
        """What each living node offers in total."""
        here = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        rooms = []
        for node in living_nodes():
            resources = node["Resources"]
            num_cpus = float(resources.get("CPU", 0))
            is_here = node["NodeManagerAddress"] == here
            rooms.append(
                NodeRoom(
                    num_cpus=num_cpus,
                    num_gpus=float(resources.get("GPU", 0)),
                    memory_bytes=float(resources.get("memory", 0)),
                    num_cores=min(num_cpus, _num_cores_here()) if is_here else num_cpus,
                )
            )
        return rooms


def _num_cores_here() -> int:
    """Cores that this process may use: fewer than the machine's inside a container."""
    return len(os.sched_getaffinity(0))


def _complete(given: dict[str, Any]) -> dict[str, Any]:
    """What the job's own runtime environment lacks: thread limits, and our packages.

    `--working-dir` has brought the packages to every node already. Ray refuses what is set twice.
    """
    variables = given.get("env_vars", {})
    more: dict[str, Any] = {
        "env_vars": {name: one for name, one in _ONE_THREAD.items() if name not in variables}
    }
    if "working_dir" not in given and "py_modules" not in given:
        root = Path(__file__).resolve().parents[2]
        more["py_modules"] = [str(root / name) for name in _SELF_SHIPPED]
    return more
