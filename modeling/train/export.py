"""Folders that replace older ones whole, and weights of earlier runs."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from modeling.tensor_files import open_tensors
from modeling.train.errors import ConfigError


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder to write into; it takes the place of `folder` if nothing goes wrong."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    older = folder.with_name(f".{folder.name}.older")
    shutil.rmtree(older, ignore_errors=True)
    if folder.exists():
        folder.rename(older)
    partial.rename(folder)
    shutil.rmtree(older, ignore_errors=True)


def read_weights(place: Path) -> tuple[Path, dict[str, Tensor]]:
    """Weights in the original layout: of a run, its final/ (averaged if there), or a file."""
    for folder in (place, place / "final"):
        for name in ("ema.safetensors", "model.safetensors"):
            if (folder / name).is_file():
                return folder / name, _read(folder / name)
    if place.is_file():
        return place, _read(place)
    raise ConfigError(
        f"--init-from {place}: neither a run's folder, nor its final/, nor a .safetensors file"
    )


def _read(file: Path) -> dict[str, Tensor]:
    try:
        with open_tensors(file) as source:
            return {name: source.read(name) for name in source.shapes}
    except ValueError as error:
        raise ConfigError(f"--init-from: {error}") from error
