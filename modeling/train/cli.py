"""The command line of training. Nothing heavy is imported before it is needed."""

import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

if TYPE_CHECKING:
    import threading

    from modeling.train.config import Kind, TrainConfig
    from modeling.train.trainer import Resume, RunResult

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def train(
    shards: Annotated[
        list[str] | None, typer.Option(help="a manifest.json; several with --weight each")
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="how often a manifest's samples come, in order")
    ] = None,
    model: Annotated[Literal["dit", "vae"] | None, typer.Option()] = None,
    config: Annotated[
        str | None, typer.Option(help="a TOML file or a recipe's name; default: by the hardware")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="a.b=c, over the config; may be repeated")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="where to stop; changes nothing else")] = None,
    out: Annotated[
        Path | None, typer.Option(help="default: runs/dit, runs/vae or runs/RECIPE")
    ] = None,
    vae: Annotated[str | None, typer.Option(help="the VAE's folder, for a DiT")] = None,
    resume: Annotated[str, typer.Option(help="auto, never, or a checkpoint's folder")] = "auto",
    init_from: Annotated[
        Path | None, typer.Option(help="begin with the weights of an earlier run")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and end")] = False,
) -> None:
    """Train on shards. The same command again goes on where it stopped."""
    from modeling.data.errors import DataError
    from modeling.train.errors import ConfigError, TrainError
    from modeling.train.layout import is_main_process

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    try:
        flags: dict[str, Any] = {"model": model, "steps": steps, "vae": vae}
        built = make_config(shards or [], weight, config, settings or [], flags)
        place = out or default_out(config, built)
        result = run(built, place, resume, init_from, dry_run=dry_run)
    except ConfigError as error:
        if not is_main_process():  # every process finds it; one says it
            raise typer.Exit(1) from None
        _fail(str(error))
    except (TrainError, DataError, FileNotFoundError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        typer.echo("stopped at once; the newest checkpoint is whole", err=True)
        raise typer.Exit(130) from None
    if result is not None:
        _say(result, place)


def make_config(
    shards: list[str],
    weights: list[float] | None,
    config: str | None,
    settings: list[str],
    flags: dict[str, Any],
    *,
    has_gpu: bool | None = None,
) -> "TrainConfig":
    """Preset or file, then --set, then the flags. `has_gpu` None: as this machine has."""
    from modeling.train.config_file import build_config, find_config, parse_setting, read_tables
    from modeling.train.errors import ConfigError

    layers = [parse_setting(text) for text in settings]
    over: dict[str, Any] = {}
    if flags["model"] is not None:
        over["model"] = flags["model"]
    if flags["steps"] is not None:
        over["steps"] = flags["steps"]
    if flags["vae"] is not None:
        over["dit"] = {"vae": flags["vae"]}
    data: dict[str, Any] = {}
    if shards:
        data["shards"] = shards
    if weights is not None:
        data["weights"] = weights
    if data:
        over["data"] = data
    layers.append(over)
    name = config
    if name is None:
        import torch

        from modeling.train.presets import preset_for, text_encoder_layer

        named = next((each["model"] for each in reversed(layers) if "model" in each), "dit")
        kind: Kind = "vae" if named == "vae" else "dit"
        has_gpu = torch.cuda.is_available() if has_gpu is None else has_gpu
        name = preset_for(kind, has_gpu=has_gpu)
        layers.insert(0, text_encoder_layer(kind, has_gpu=has_gpu))
    built = build_config([read_tables(find_config(name)), *layers])
    if not built.data.shards:
        raise ConfigError("no shards: give --shards MANIFEST, or data.shards in the config")
    return built


def default_out(config: str | None, built: "TrainConfig") -> Path:
    return Path("runs") / (Path(config).stem if config else built.model)


def run(
    config: "TrainConfig",
    out: Path,
    resume: str,
    init_from: Path | None,
    *,
    dry_run: bool,
    stop_asked: "threading.Event | None" = None,
) -> "RunResult | None":
    """One process of a run; a launcher may have started others. None after a dry run."""
    from modeling.train import compute, report
    from modeling.train.export import read_weights
    from modeling.train.layout import (
        find_layout,
        launched_processes,
        local_rank,
        processes_per_node,
    )
    from modeling.train.spread import make_parallel
    from modeling.train.stream import BatchStream, open_corpus
    from modeling.train.trainer import Trainer

    layout = find_layout(config, launched_processes(), processes_per_node())
    device = compute.pick_device(config.compute, local_rank())
    compute.prepare(config.compute, device)
    parallel = make_parallel(layout, device, compute.precision(config.compute, device))
    stream = BatchStream(
        open_corpus(config.data, cache=None if dry_run else out / "index-cache"),
        config,
        rank=parallel.rank,
        world_size=parallel.world_size,
        pin_memory=device.type == "cuda",
    )
    plan = report.make_plan(config, stream, device, layout)
    init_file, init = None, None
    if init_from is not None:
        init_file, init = read_weights(init_from)
        typer.echo(f"weights  of {init_file}")
    if dry_run:
        if parallel.is_main:
            _print_plan(report.describe(plan))
        parallel.close()
        return None
    trainer = Trainer(
        config,
        out,
        parallel,
        stream=stream,
        plan=plan,
        resume=_parse_resume(resume),
        init=init,
        init_file=init_file,
        stop_asked=stop_asked,
    )
    if parallel.is_main:
        _print_plan(report.describe(plan, first_step=trainer.step))
    result = trainer.run()
    parallel.close()
    return result


def _parse_resume(text: str) -> "Resume":
    if text == "auto":
        return "auto"
    return "never" if text == "never" else Path(text)


def _print_plan(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)


def _say(result: "RunResult", out: Path) -> None:
    from modeling.train.layout import is_main_process

    if result.signal is not None:
        if is_main_process():
            typer.echo(
                f"{result.signal.name}: saved step {result.step} in {out}; go on with\n"
                f"  {_same_command()}"
            )
        raise typer.Exit(128 + result.signal)
    if not is_main_process():
        return
    typer.echo(f"done: step {result.step}, {result.final}")
    for path in result.previews:
        typer.echo(f"preview  {path}")


def _same_command() -> str:
    from modeling.train.layout import launched_processes, processes_per_node

    module = ["-m", "modeling.train", *sys.argv[1:]]
    if launched_processes() == 1:
        return shlex.join(["python", *module])
    if launched_processes() > processes_per_node():
        return shlex.join(["torchrun", *module]) + "   (and torchrun's options as before)"
    return shlex.join(["torchrun", "--nproc-per-node", str(launched_processes()), *module])


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)
