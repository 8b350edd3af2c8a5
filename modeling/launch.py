"""Train on the Ray cluster that curated: `python -m modeling.launch --workers N ...`.

Ray Train's `TorchTrainer` starts a process a worker and joins them; what they do is
`modeling.train`, checkpoints and resume included, so a run may go from one launcher to another.
Workers need the same files under the same paths. SIGTERM or Ctrl-C reaches the workers through an
actor: they train in a thread of a Ray process, where Python takes no signals.
"""

import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.main import get_command

from modeling.train import cli
from modeling.train.errors import ConfigError, TrainError
from schemas.ray_authentication import choose_authentication

if TYPE_CHECKING:
    from modeling.train.config import TrainConfig

# The main process samples and exports alone, while the others wait.
_TIMEOUT = timedelta(hours=1)
_POLL_S = 0.5
_SAME_SIGNAL_S = 3.0  # a scheduler signals the command, and the group that it is in

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@dataclass(frozen=True)
class Job:
    """What each worker runs. `folder` is where relative paths begin."""

    config: "TrainConfig"
    folder: Path
    out: Path
    resume: str
    init_from: Path | None
    dry_run: bool


@dataclass(frozen=True)
class Cluster:
    """Which Ray, and how much of it. A worker trains on one GPU, or on CPUs alone."""

    address: str
    num_workers: int
    gpus_per_worker: int
    cpus_per_worker: int

    def __post_init__(self) -> None:
        if self.num_workers < 1 or self.cpus_per_worker < 1:
            raise ConfigError(
                "--workers and --cpus-per-worker must be 1 or more, "
                f"got {self.num_workers} and {self.cpus_per_worker}"
            )
        if self.gpus_per_worker not in (0, 1):
            raise ConfigError(
                f"--gpus-per-worker must be 0 or 1, got {self.gpus_per_worker}: a worker trains "
                "on one GPU; raise --workers"
            )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def launch(
    context: typer.Context,
    address: Annotated[
        str, typer.Option(help="of a running Ray, auto, or local for one of its own")
    ] = "auto",
    workers: Annotated[int, typer.Option(help="processes")] = 1,
    gpus_per_worker: Annotated[int, typer.Option(help="1, or 0 to train on CPUs")] = 1,
    cpus_per_worker: Annotated[int, typer.Option(help="that Ray sets aside")] = 1,
) -> None:
    """Train on a Ray cluster. All other options are those of modeling.train."""
    from modeling.data.errors import DataError

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    try:
        cluster = Cluster(address, workers, gpus_per_worker, cpus_per_worker)
        job = make_job(context.args, cluster)
        told = run(job, cluster)
    except (TrainError, DataError, FileNotFoundError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("stopped at once; the newest checkpoint is whole", err=True)
        raise typer.Exit(130) from None
    if told is None:
        return
    if told["signal"] is not None:
        stopped_by = signal.Signals(told["signal"])
        same = shlex.join(["python", "-m", "modeling.launch", *sys.argv[1:]])
        typer.echo(
            f"{stopped_by.name}: saved step {told['step']} in {job.out}; go on with\n  {same}"
        )
        raise typer.Exit(128 + stopped_by)
    typer.echo(f"done: step {told['step']}, {told['final']}")


def make_job(options: list[str], cluster: Cluster) -> Job:
    """From options of modeling.train. Raises ConfigError for a layout that cannot be."""
    from modeling.train.layout import find_layout

    params = get_command(cli.app).make_context("modeling.train", list(options)).params
    config = cli.make_config(
        params["shards"] or [],
        params["weight"] or None,
        params["config"],
        params["settings"] or [],
        {name: params[name] for name in ("model", "steps", "vae")},
        has_gpu=cluster.gpus_per_worker > 0,
    )
    if cluster.gpus_per_worker == 0:
        if config.compute.device == "cuda":
            raise ConfigError("compute.device = 'cuda', but --gpus-per-worker is 0")
        on_cpu = config.compute.model_copy(update={"device": "cpu"})
        config = config.model_copy(update={"compute": on_cpu})
    find_layout(config, cluster.num_workers, cluster.num_workers)
    return Job(
        config,
        Path.cwd(),
        params["out"] or cli.default_out(params["config"], config),
        params["resume"],
        params["init_from"],
        params["dry_run"],
    )


def run(job: Job, cluster: Cluster) -> dict[str, Any] | None:
    """What the first worker told at its end; None after a dry run.

    Raises:
        ConfigError: Ray is not installed, not there, or has too little.
        TrainError: the run failed; what was saved stays.

    """
    choose_authentication(cluster.address)  # before Ray is imported
    try:
        import ray
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise ConfigError(
            f"Ray Train is not installed ({error}): pip install 'reelsieve[launch]'"
        ) from error
    # Relative paths begin where the command was given.
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    try:
        ray.init(address=cluster.address, logging_level=logging.WARNING)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(f"--address {cluster.address}: no Ray there ({error})") from error
    try:
        check_resources(cluster, ray.cluster_resources())  # type: ignore[no-untyped-call]
        desk: Any = ray.remote(Desk).options(num_cpus=0).remote()
        trainer = TorchTrainer(
            train_as_worker,
            train_loop_config={"job": job, "desk": desk},
            **_ray_configs(job, cluster),
        )
        failed = _fit(trainer, desk)
        told: dict[str, Any] | None = ray.get(desk.told.remote())
        if failed is None:
            return told
        if told is not None and "error" in told:
            raise TrainError(told["error"]) from failed
        lines = [line.strip() for line in str(failed).splitlines() if line.strip()]
        reason, *_ = (lines[-1] if lines else type(failed).__name__).split(". ")
        raise TrainError(
            f"a worker was lost ({reason}); the same "
            "command again goes on from the newest checkpoint"
        ) from failed
    finally:
        ray.shutdown()


def check_resources(cluster: Cluster, found: Mapping[str, float]) -> None:
    """Raise ConfigError for workers that the whole cluster, were it idle, could not hold."""
    for kind, each in (("GPU", cluster.gpus_per_worker), ("CPU", cluster.cpus_per_worker)):
        wanted, there = each * cluster.num_workers, found.get(kind, 0.0)
        if wanted > there:
            hint = ", or train on CPUs with --gpus-per-worker 0" if kind == "GPU" else ""
            raise ConfigError(
                f"{cluster.num_workers} workers need {wanted} {kind}s, the cluster has "
                f"{there:g}: lower --workers{hint}"
            )


def _ray_configs(job: Job, cluster: Cluster) -> dict[str, Any]:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    resources = {"CPU": float(cluster.cpus_per_worker)}
    if cluster.gpus_per_worker:
        resources["GPU"] = 1.0
    return {
        "scaling_config": ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=cluster.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        "torch_config": TorchConfig(timeout_s=int(_TIMEOUT.total_seconds())),
        # Ray keeps notes of its own; checkpoints are ours.
        "run_config": RunConfig(name="ray", storage_path=str((job.folder / job.out).resolve())),
    }


def _fit(trainer: Any, desk: Any) -> BaseException | None:
    """What ended the run early. A signal asks the workers to save and stop; a second ends all.

    In a thread: in the main one Ray would take Ctrl-C, and nothing would be saved.
    """
    import ray

    errors: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001  told by the main thread
            errors.append(error)

    asked: list[int] = []
    deadlines: list[float] = []

    def stop(number: int, frame: object) -> None:
        del frame
        if not asked:
            asked.append(number)
            deadlines.append(time.monotonic() + _SAME_SIGNAL_S)
        elif time.monotonic() > deadlines[0]:
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    stopping = (signal.SIGTERM, signal.SIGINT) if is_main else ()
    before = [signal.signal(number, stop) for number in stopping]
    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    has_told = False
    try:
        while thread.is_alive():
            thread.join(_POLL_S)
            if asked and not has_told:
                ray.get(desk.ask_to_stop.remote(asked[0]))
                has_told = True
    finally:
        for number, handler in zip(stopping, before, strict=True):
            signal.signal(number, handler)
    return errors[0] if errors else None


class Desk:
    """An actor between the command and its workers."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._told: dict[str, Any] | None = None

    def ask_to_stop(self, number: int) -> None:
        self._signal = number

    def stop_asked(self) -> int | None:
        return self._signal

    def tell(self, what: dict[str, Any]) -> None:
        self._told = self._told or what

    def told(self) -> dict[str, Any] | None:
        return self._told


def train_as_worker(given: dict[str, Any]) -> None:
    """On every worker, in a thread of it; Ray has made the processes' group and will end it."""
    import ray

    from modeling.data.errors import DataError
    from modeling.train.layout import is_main_process

    job: Job = given["job"]
    desk: Any = given["desk"]
    logging.getLogger("modeling").setLevel(logging.INFO)
    asked = threading.Event()
    done = threading.Event()

    def watch() -> None:
        with suppress(ray.exceptions.RayError):
            while not done.wait(_POLL_S):
                if ray.get(desk.stop_asked.remote()) is not None:
                    asked.set()
                    return

    threading.Thread(target=watch, daemon=True).start()
    try:
        if not job.folder.is_dir():
            raise ConfigError(f"{job.folder} is not on this worker: all need the same files")
        os.chdir(job.folder)
        result = cli.run(
            job.config,
            job.out,
            job.resume,
            job.init_from,
            dry_run=job.dry_run,
            stop_asked=asked,
        )
    except (TrainError, DataError, FileNotFoundError) as error:
        ray.get(desk.tell.remote({"error": str(error)}))
        raise
    finally:
        done.set()
    if result is not None and is_main_process():
        stopped_by = ray.get(desk.stop_asked.remote()) if result.signal is not None else None
        final = None if result.final is None else str(result.final)
        told = {"step": result.step, "signal": stopped_by, "final": final}
        ray.get(desk.tell.remote(told))


if __name__ == "__main__":
    # By its name: workers import what they run.
    from modeling.launch import app as command

    command(prog_name="python -m modeling.launch")
