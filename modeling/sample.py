"""`python -m modeling.sample --checkpoint D --prompt P --out x.mp4`: text to video or image."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import torch
import typer
from pydantic import ValidationError
from rich.progress import Progress
from torch import Tensor

from modeling.rewrite.answer import Mode
from modeling.rewrite.choice import PACKAGED, WriterChoice, rewritten
from modeling.rewrite.errors import RewriteError
from modeling.sampler import Sampler, SampleRequest
from schemas.h264 import REPEATABLE_X264_PARAMS

app = typer.Typer(pretty_exceptions_enable=False)

UNTRAINED_VAE_WARNING = (
    "warning: this checkpoint was trained behind an untrained VAE (random weights), so the sample "
    "is noise; train again with --vae FOLDER for pictures"
)
VIDEO_SUFFIXES, IMAGE_SUFFIXES = (".mp4",), (".png",)


def parse_size(text: str) -> tuple[int, int]:
    """`HxW` in pixels."""
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ValueError(f"the size must be HEIGHTxWIDTH, such as 256x256, got {text!r}")
    return int(height), int(width)


def write_video(path: Path, pieces_THWC: Iterator[Tensor], *, fps: int) -> int:
    """H.264 in one thread (the same frames give the same bytes); returns the number of frames."""
    import av

    num_frames = 0
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        options = {"crf": "16", "threads": "1", "flags": "+bitexact"}
        options["x264-params"] = REPEATABLE_X264_PARAMS
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, fps)
        for piece_THWC in pieces_THWC:
            for image_HWC in piece_THWC.numpy():
                if num_frames == 0:
                    stream.height, stream.width = image_HWC.shape[:2]
                frame = av.VideoFrame.from_ndarray(image_HWC, format="rgb24")
                frame.pts = num_frames
                container.mux(stream.encode(frame))
                num_frames += 1
        container.mux(stream.encode())
    return num_frames


def write_image(path: Path, image_HWC: Tensor) -> None:
    """A PNG without metadata."""
    from PIL import Image

    Image.fromarray(image_HWC.numpy()).save(path)


@app.command()
def sample(
    checkpoint: Annotated[Path, typer.Option(help="a run's final/ or a diffusers folder")],
    prompt: Annotated[str, typer.Option()],
    out: Annotated[Path, typer.Option(help="x.mp4, or x.png for an image")],
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH, multiples of 16")] = "256x256",
    frames: Annotated[int | None, typer.Option(help="4n + 1; an image has 1")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    steps: Annotated[int, typer.Option()] = 50,
    shift: Annotated[float | None, typer.Option(help="default: 7, or 17 under 20 steps")] = None,
    method: Annotated[Literal["euler", "heun"], typer.Option()] = "euler",
    guidance: Annotated[float, typer.Option(help="for distilled models")] = 6.0,
    cfg: Annotated[float | None, typer.Option(help="classifier-free guidance scale")] = None,
    negative_prompt: Annotated[str, typer.Option()] = "",
    rewrite: Annotated[Mode | None, typer.Option(help="structure the prompt first")] = None,
    rewrite_model: Annotated[str, typer.Option(help="language model that rewrites")] = PACKAGED,
    rewrite_adapter: Annotated[Path | None, typer.Option(help="of modeling.rewrite")] = None,
    rewrite_endpoint: Annotated[str | None, typer.Option(help="URL instead of a model")] = None,
    fps: Annotated[int, typer.Option(min=1)] = 24,
    vae: Annotated[Path | None, typer.Option(help="the VAE's folder, if it has moved")] = None,
    lora: Annotated[
        Path | None, typer.Option(help="an adapter's folder, over the checkpoint")
    ] = None,
    device: Annotated[str | None, typer.Option()] = None,
    dtype: Annotated[Literal["float32", "bfloat16"] | None, typer.Option()] = None,
) -> None:
    """Sample one video or image. The same seed gives the same file on the CPU."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if out.suffix not in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
            raise ValueError(f"--out must end in .mp4 or .png, got {out.name!r}")
        if rewrite is not None:
            writer = WriterChoice.of(
                rewrite_model, adapter=rewrite_adapter, endpoint=rewrite_endpoint, device=device
            )
            prompt = rewritten(prompt, writer, mode=rewrite)
            typer.echo(f"prompt: {prompt}", err=True)
        is_image = out.suffix in IMAGE_SUFFIXES
        height, width = parse_size(size)
        num_frames = frames or (1 if is_image else 17)
        if is_image and num_frames != 1:
            raise ValueError(f"a .png holds one frame, got --frames {num_frames}")
        request = SampleRequest(
            prompt=prompt,
            negative_prompt=negative_prompt,
            height=height,
            width=width,
            num_frames=num_frames,
            seed=seed,
            num_steps=steps,
            shift=shift,
            method=method,
            guidance=guidance,
            cfg_scale=cfg,
        )
        torch_dtype = None if dtype is None else getattr(torch, dtype)
        sampler = Sampler.load(
            checkpoint, vae_folder=vae, lora=lora, device=device, dtype=torch_dtype
        )
        if sampler.vae_is_untrained:
            typer.echo(UNTRAINED_VAE_WARNING, err=True)
        latent_BCTHW = _denoise(sampler, request)
    except ValidationError as error:
        _fail("; ".join(issue["msg"] for issue in error.errors()), error)
    except (ValueError, FileNotFoundError, RewriteError) as error:
        _fail(str(error), error)
    out.parent.mkdir(parents=True, exist_ok=True)
    pieces_THWC = sampler.frames(latent_BCTHW)
    if is_image:
        write_image(out, next(pieces_THWC)[0])
    else:
        write_video(out, pieces_THWC, fps=fps)
    typer.echo(str(out))


def _denoise(sampler: Sampler, request: SampleRequest) -> Tensor:
    with Progress(transient=True) as progress:
        task = progress.add_task("sampling", total=request.num_steps)
        return sampler.latent(request, on_step=lambda step: progress.update(task, completed=step))


def _fail(message: str, error: Exception) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2) from error


if __name__ == "__main__":
    app()
