"""`python -m modeling.evaluate --checkpoint RUN/final --shards MANIFEST --out DIR`."""

from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import torch
import typer
from pydantic import ValidationError

from modeling.data.errors import DataError
from modeling.data.view import ViewConfig
from modeling.evaluate.errors import EvaluationError
from modeling.evaluate.report import EvaluationConfig, Report
from modeling.evaluate.run import evaluate
from modeling.sample import parse_size
from modeling.sampler import SampleRequest
from modeling.train.errors import TrainError

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    checkpoint: Annotated[
        Path, typer.Option(help="a run's final/, a folder of its checkpoints/, or a VAE's folder")
    ],
    shards: Annotated[list[str], typer.Option(help="manifest.json of shards not trained on")],
    out: Annotated[Path, typer.Option(help="folder of the report and its pictures")],
    samples: Annotated[int, typer.Option(min=1, help="of each bucket")] = 16,
    bins: Annotated[int, typer.Option(min=1, help="of sigma, for a DiT")] = 10,
    max_frames: Annotated[int | None, typer.Option(help="of a sample; 4n + 1")] = None,
    area_side: Annotated[int | None, typer.Option(help="scale samples to this area")] = None,
    crop_side: Annotated[int | None, typer.Option(help="cut a square out")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="sample it; may be repeated")] = None,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH of what is sampled")] = "256x256",
    frames: Annotated[int, typer.Option(help="of what is sampled; 1 is an image")] = 17,
    steps: Annotated[int, typer.Option(min=1, help="of sampling")] = 30,
    seed: Annotated[int, typer.Option()] = 0,
    vae: Annotated[Path | None, typer.Option(help="a DiT's VAE, if it has moved")] = None,
    verify: Annotated[Literal["index", "full"], typer.Option()] = "index",
    precision: Annotated[Literal["auto", "fp32", "bf16"], typer.Option()] = "auto",
    device: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Measure a network on shards: a DiT's loss by noise level, a VAE's fidelity."""
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    asked: dict[str, Any] = {
        name: value
        for name, value in (
            ("max_frames", max_frames),
            ("area_side", area_side),
            ("crop_side", crop_side),
        )
        if value is not None
    }
    try:
        height, width = parse_size(size)
        requests = tuple(
            SampleRequest(
                prompt=text,
                height=height,
                width=width,
                num_frames=frames,
                num_steps=steps,
                seed=seed,
            )
            for text in prompt or ()
        )
        config = EvaluationConfig(
            num_per_bucket=samples,
            num_bins=bins,
            seed=seed,
            view=ViewConfig(**asked) if asked else None,
            verify=verify,
            precision=precision,
            requests=requests,
        )
        report = evaluate(checkpoint, shards, out, config, device=place, vae_folder=vae)
    except ValidationError as error:
        _fail("; ".join(issue["msg"] for issue in error.errors()))
    except (EvaluationError, DataError, TrainError, FileNotFoundError, ValueError) as error:
        _fail(str(error))
    _say(report, out)


def _say(report: Report, out: Path) -> None:
    for weights, losses in report.losses.items():
        for bucket, loss in losses.items():
            typer.echo(f"{weights} {bucket}: loss {loss.loss:.4f} over {loss.num_samples} samples")
    for weights, found in report.fidelity.items():
        for bucket, one in found.items():
            typer.echo(
                f"{weights} {bucket}: {one.psnr_db:.2f} dB, SSIM {one.ssim:.4f}, "
                f"flicker {one.flicker:.3f} over {one.num_clips} samples"
            )
    if report.unreadable:
        typer.echo(f"{len(report.unreadable)} samples could not be read: see report.md")
    typer.echo(f"wrote {out / 'report.md'}")


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app(prog_name="modeling.evaluate")
