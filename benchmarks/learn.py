"""Proof that the models learn: `prepare` anywhere, then `vae`, `dit` and `scaling` on one GPU.

    python -m benchmarks.learn prepare --bundle B --film bbb.mp4 --media $REELSIEVE_MEDIA \
        --wallpapers W --gcompris G
    python -m benchmarks.learn vae     --bundle B --out O --minutes 5
    python -m benchmarks.learn dit     --bundle B --out O --minutes 1.5
    python -m benchmarks.learn scaling --bundle B --out O --minutes 1.5

The GPU commands need torch, numpy, OpenCV, Pillow, scikit-image, safetensors, pydantic and typer;
no network, no PyAV. `--tiny` runs everything on a CPU in seconds, to see that it works.
"""

import logging
from pathlib import Path
from typing import Annotated

import torch
import typer

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

Bundle = Annotated[Path, typer.Option(help="folder that `prepare` writes")]
Out = Annotated[Path, typer.Option(help="folder for figures and weights")]
Minutes = Annotated[float, typer.Option(help="training time; setup and report come on top")]
Tiny = Annotated[bool, typer.Option("--tiny", help="toy sizes")]


def _device() -> torch.device:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 4  # every stage has new shapes: keep the search short
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda")


@app.command()
def prepare(
    bundle: Bundle,
    film: Annotated[Path, typer.Option(help="Big Buck Bunny, from the moviepy sdist")],
    media: Annotated[Path, typer.Option(envvar="REELSIEVE_MEDIA")],
    wallpapers: Annotated[Path, typer.Option(help="backgrounds/ of lomiri-wallpapers-16.04")],
    gcompris: Annotated[Path, typer.Option(help="rcc/ of the Debian package gcompris-qt-data")],
) -> None:
    """Cut media and captions down to one small folder."""
    import skimage
    import sklearn.datasets

    from benchmarks import learn_data

    _device()
    folders = {
        "film": film.parent,
        "media": media,
        "wallpapers": wallpapers,
        "gcompris": gcompris,
        "skimage": Path(str(skimage.__file__)).parent / "data",
        "sklearn": Path(str(sklearn.datasets.__file__)).parent / "images",
    }
    learn_data.prepare(bundle, folders)
    learn_data.prepare_captions(bundle)


@app.command()
def vae(
    bundle: Bundle,
    out: Out,
    minutes: Minutes = 5.0,
    tiny: Tiny = False,
    rate: Annotated[float | None, typer.Option(help="learning rate; without, try three")] = None,
) -> None:
    """Train the small VAE and compare it with the PCA autoencoder."""
    from benchmarks.learn_vae import run_vae

    run_vae(bundle, out, minutes=minutes, device=_device(), tiny=tiny, rate=rate)


@app.command()
def dit(bundle: Bundle, out: Out, minutes: Minutes = 1.5, tiny: Tiny = False) -> None:
    """Train a small DiT in the latents of the VAE below --out."""
    from benchmarks.learn_dit import run_dit

    run_dit(bundle, out, out / "vae", minutes=minutes, device=_device(), tiny=tiny)


@app.command()
def scaling(bundle: Bundle, out: Out, minutes: Minutes = 1.5, tiny: Tiny = False) -> None:
    """Train five sizes for equal times and fit the scaling law."""
    from benchmarks.learn_dit import run_scaling

    run_scaling(bundle, out, out / "vae", minutes=minutes, device=_device(), tiny=tiny)


if __name__ == "__main__":
    app()
