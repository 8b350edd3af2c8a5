"""`python -m modeling.precompute --shards MANIFEST --out DIR`: pixel shards to latent shards.

Encoders, view and texts are those of a training config, so that the same config then trains on
`DIR/manifest.json`. Each shard is a task of its own that leaves a report; what is finished is never
done again. Tasks run one after the other on this machine's device, or in Ray actors (`--ray`) that
share the file system of `--out`.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import torch
import typer

from modeling.data.errors import DataError
from modeling.data.latent_shards import (
    LatentShardReport,
    read_report,
    shard_name,
    write_manifest,
    write_whole,
)
from modeling.train import compute
from modeling.train.cli import make_config
from modeling.train.config import TrainConfig
from modeling.train.errors import ConfigError, TrainError
from modeling.train.latent_encoder import EncodeConfig
from modeling.train.latent_job import Job, ShardEncoder, open_pixels, task_of
from schemas.ray_authentication import choose_authentication

logger = logging.getLogger(__name__)

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)

_SETTINGS_FILE = "settings.json"
_FAILED_GRACE, _MAX_FAILED_SHARE = 8, 0.01


def encode_config(config: TrainConfig, device: torch.device, **over: Any) -> EncodeConfig:
    """What a training config says about latents. Raises ConfigError for what cannot be stored."""
    if config.model != "dit":
        raise ConfigError("latents are for a DiT; a VAE trains on pixels")
    view = config.data.view
    if view.placement == "random" or view.max_frame_interval > 1:
        raise ConfigError(
            "data.view draws a place or a frame interval at every step; a latent shard holds one "
            "view: set placement = 'first' and max_frame_interval = 1"
        )
    bf16 = compute.precision(config.compute, device) == torch.bfloat16
    return EncodeConfig(
        vae=config.dit.vae,
        text_encoder=config.dit.text_encoder,
        view=view,
        caption=config.data.caption,
        seed=config.seed,
        precision="bf16" if bf16 else "fp32",
        decoder=config.data.loader.decoder,
        **over,
    )


def precompute(job: Job, run: "Runner | None" = None) -> Path:
    """Encode what is not encoded yet and write the manifest; returns its path.

    Raises DataError, TrainError.
    """
    corpus = open_pixels(job)
    manifest = corpus.manifests[0]
    names = [shard_name(entry) for entry in manifest.shards]
    if len(set(names)) < len(names):
        raise DataError(job.manifest, "two shards have one name", "rename one of them")
    with (run or LocalRunner)(job) as workers:
        encoders = workers.fingerprints()
        _keep_settings(job, encoders)
        tasks = [
            task_of(job.config, encoders, entry.sha256, entry.index_sha256)
            for entry in manifest.shards
        ]
        found = {
            number: report
            for number, (entry, task) in enumerate(zip(manifest.shards, tasks, strict=True))
            if (report := read_report(job.out, entry, task)) is not None
        }
        left = [number for number in range(len(tasks)) if number not in found]
        logger.info("%d shards, %d of them encoded before", len(tasks), len(found))
        started = time.monotonic()
        for number, report in workers.encode(left):
            found[number] = report
            num = 0 if report.entry is None else report.entry.num_samples
            seconds = time.monotonic() - started
            logger.info(
                "%d/%d %s: %d samples, %.1f s", len(found), len(tasks), names[number], num, seconds
            )
    reports = [found[number] for number in range(len(tasks))]
    _check_failed(job, reports)
    return write_manifest(
        job.out,
        manifest,
        reports,
        encoders=encoders,
        settings_fingerprint=task_of(job.config, encoders),
        source_hash=corpus.manifest_hash,
    )


class LocalRunner:
    """One encoder in this process."""

    def __init__(self, job: Job) -> None:
        self._encoder = ShardEncoder(job)

    def __enter__(self) -> "LocalRunner":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def fingerprints(self) -> dict[str, str]:
        return self._encoder.fingerprints()

    def encode(self, numbers: Sequence[int]) -> Iterator[tuple[int, LatentShardReport]]:
        for number in numbers:
            yield number, self._encoder.encode(number)


class RayRunner:
    """One encoder per Ray actor. `address` "local" starts a Ray of its own."""

    def __init__(self, job: Job, address: str, num_actors: int, gpus_per_actor: float) -> None:
        if num_actors < 1:
            raise ConfigError(f"--actors must be 1 or more, got {num_actors}")
        choose_authentication(address)  # before Ray is imported
        import ray

        self._ray = ray
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError) as error:
            raise ConfigError(f"--ray {address}: no Ray there ({error})") from error
        made: Any = ray.remote(ShardEncoder).options(num_gpus=gpus_per_actor)
        self._actors: list[Any] = [made.remote(job) for _ in range(num_actors)]

    def __enter__(self) -> "RayRunner":
        return self

    def __exit__(self, *error: object) -> None:
        self._ray.shutdown()

    def fingerprints(self) -> dict[str, str]:
        found = self._get([actor.fingerprints.remote() for actor in self._actors])
        if any(other != found[0] for other in found):
            raise DataError("--ray", "actors have different encoders", "install the same versions")
        first: dict[str, str] = found[0]
        return first

    def encode(self, numbers: Sequence[int]) -> Iterator[tuple[int, LatentShardReport]]:
        waiting = list(reversed(numbers))
        running: dict[Any, tuple[Any, int]] = {}
        idle = list(self._actors)
        while waiting or running:
            while waiting and idle:
                actor, number = idle.pop(), waiting.pop()
                running[actor.encode.remote(number)] = (actor, number)
            (done, *_), _ = self._ray.wait(list(running), num_returns=1)
            actor, number = running.pop(done)
            yield number, self._get(done)
            idle.append(actor)

    def _get(self, what: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(what)
        except errors.RayTaskError as error:
            if isinstance(error.cause, DataError | TrainError | FileNotFoundError):
                raise error.cause from None
            raise
        except errors.RayActorError as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(
                "--ray", f"an actor was lost ({reason})", "run again: finished shards stay"
            ) from error


Runner = Callable[[Job], LocalRunner | RayRunner]


@app.command()
def main(
    shards: Annotated[str, typer.Option(help="manifest.json of pixel shards")],
    out: Annotated[Path, typer.Option(help="folder of the latent shards")],
    config: Annotated[
        str | None, typer.Option(help="a training config or recipe; default: by the hardware")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="a.b=c, over the config; may be repeated")
    ] = None,
    vae: Annotated[str | None, typer.Option(help="the VAE's folder")] = None,
    text_encoder: Annotated[
        str | None, typer.Option(help="encoder of the token states, as dit.text_encoder.states")
    ] = None,
    texts: Annotated[int, typer.Option(min=1, help="texts drawn of each caption")] = 4,
    dtype: Annotated[Literal["half", "float32"], typer.Option()] = "half",
    tile_above: Annotated[
        int, typer.Option(min=0, help="pixels of a clip from which on it is encoded in tiles")
    ] = 65 * 512 * 512,
    ray: Annotated[
        str | None, typer.Option(help="address of a Ray cluster, auto, or local")
    ] = None,
    actors: Annotated[int, typer.Option(min=1)] = 1,
    gpus_per_actor: Annotated[
        float | None, typer.Option(min=0, help="default: 1 where this machine has a GPU")
    ] = None,
) -> None:
    """Encode shards once, for any number of training runs."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    try:
        over = list(settings or [])
        if text_encoder is not None:
            over.append(f"dit.text_encoder.states={json.dumps(text_encoder)}")
        flags: dict[str, Any] = {"model": None, "steps": None, "vae": vae}
        built = make_config([shards], None, config, over, flags)
        device = compute.pick_device(built.compute)
        job = Job(
            manifest=shards,
            out=out.resolve(),
            config=encode_config(
                built, device, num_texts=texts, dtype=dtype, tile_above_pixels=tile_above
            ),
            compute=built.compute,
            num_threads=built.data.loader.num_threads,
            verify=built.data.verify,
        )
        runner: Runner = LocalRunner
        if ray is not None:
            gpus = gpus_per_actor
            if gpus is None:
                gpus = 1.0 if device.type == "cuda" else 0.0
            runner = _ray_runner(ray, actors, gpus)
        path = precompute(job, runner)
    except (TrainError, DataError, FileNotFoundError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        typer.echo("stopped; finished shards stay, the same command goes on", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"done: {path}")
    typer.echo(f"train with: python -m modeling.train --shards {path}, and the same config")


def _ray_runner(address: str, num_actors: int, gpus_per_actor: float) -> Runner:
    return lambda job: RayRunner(job, address, num_actors, gpus_per_actor)


def _keep_settings(job: Job, encoders: Mapping[str, str]) -> None:
    """A folder holds shards of one kind. Raises DataError that names the first difference."""
    own = {**job.config.model_dump(mode="json", exclude={"vae"}), **encoders}
    text = json.dumps(own, indent=2, sort_keys=True) + "\n"
    file = job.out / _SETTINGS_FILE
    if not file.is_file():
        try:
            write_whole(file, text.encode())
        except OSError as error:
            raise DataError(
                str(job.out), f"cannot be written ({error.strerror})", "give another --out"
            ) from error
        return
    try:
        before = json.loads(file.read_text())
    except ValueError as error:
        raise DataError(str(file), "cannot be read", "give another --out") from error
    for name in sorted(before.keys() | own.keys()):
        if before.get(name) != own.get(name):
            raise DataError(
                str(job.out),
                f"holds latents made with {name} = {before.get(name)}, now {own.get(name)}",
                "give another --out",
            )


def _check_failed(job: Job, reports: Sequence[LatentShardReport]) -> None:
    num_failed = sum(len(report.failed) for report in reports)
    num_good = sum(report.entry.num_samples for report in reports if report.entry)
    total = num_good + num_failed
    if not num_good or num_failed > max(_FAILED_GRACE, _MAX_FAILED_SHARE * total):
        raise DataError(
            job.manifest,
            f"{num_failed} of {total} samples are bad",
            "check the shards with `python -m pipeline verify`",
        )


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app(prog_name="modeling.precompute")
