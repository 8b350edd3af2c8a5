"""The cluster files are valid, without a cluster, and agree with the project."""

import copy
import re
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def cluster() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    return config


def _validate(config: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own modules
        from ray.autoscaler._private.util import prepare_config, validate_config

        validate_config(prepare_config(copy.deepcopy(config)))


def test_ray_accepts_the_cluster_file(cluster: dict[str, Any]) -> None:
    _validate(cluster)


@pytest.mark.parametrize(
    ("key", "value"), [("max_worker", 3), ("available_node_types", []), ("max_workers", "many")]
)
def test_ray_refuses_a_broken_cluster_file(cluster: dict[str, Any], key: str, value: Any) -> None:
    cluster[key] = value
    with pytest.raises(Exception, match=r"max_worker|\[\]|many|list|type"):
        _validate(cluster)


def test_nodes_fit_under_the_limit_and_pools_find_them_all_at_the_start(
    cluster: dict[str, Any],
) -> None:
    types = cluster["available_node_types"]
    assert set(types) == {"head", "cpu_worker", "gpu_worker"}
    assert types["head"]["resources"]["CPU"] == 0
    assert types["gpu_worker"]["resources"]["GPU"] == 1
    workers = [types["cpu_worker"], types["gpu_worker"]]
    assert sum(worker["max_workers"] for worker in workers) == cluster["max_workers"]
    assert all(worker["min_workers"] == worker["max_workers"] for worker in workers)


def test_the_cluster_files_name_a_ray_that_the_project_allows(cluster: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = [
        line for line in project["optional-dependencies"]["pipeline"] if line.startswith("ray[")
    ]
    (low, high) = re.findall(r"\d+\.\d+", wanted)
    (installed,) = re.findall(r"ray\[default\]==(\d+\.\d+)", str(cluster["setup_commands"]))
    job = yaml.safe_load((ROOT / "docs" / "rayjob.yaml").read_text())
    of_job = job["spec"]["rayClusterSpec"]["rayVersion"].rsplit(".", 1)[0]
    assert low == installed == of_job != high


def test_the_nodes_install_what_the_pipeline_needs(cluster: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {*project["dependencies"], *extras["pipeline"], *extras["s3"]}
    installed = " ".join(cluster["setup_commands"])
    names = {re.split(r"[<>=\[]", line)[0] for line in wanted}
    assert {name for name in names if not re.search(rf'"{name}[\[<>=]', installed)} == set()


def test_every_node_asks_for_the_token(cluster: dict[str, Any]) -> None:
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = cluster[name][-1]
        assert "RAY_AUTH_MODE=token" in start
    assert any(target.endswith(".ray/auth_token") for target in cluster["file_mounts"])
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1]


def test_the_rayjob_has_what_kuberay_requires() -> None:
    job = yaml.safe_load((ROOT / "docs" / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec["entrypoint"].startswith("python ")
    assert "pipeline/run.py" in spec["entrypoint"]
    assert spec["submissionMode"] in {"K8sJobMode", "HTTPMode", "SidecarMode"}
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["activeDeadlineSeconds"] > 0
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        assert {"name", "image", "env", "resources"} <= container.keys()
        variables = {entry["name"]: entry["value"] for entry in container["env"]}
        assert variables["RAY_AUTH_MODE"] in {"disabled", "token"}
        assert all(isinstance(value, str) for value in variables.values())
    for group in groups[1:]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
