"""The same renderings for a YOLO: a data set in its format, and a training by ultralytics.

ultralytics is AGPL-3.0 and so may be what is trained with it: it is imported by `train_yolo`
alone, nothing that the project ships is made with it, and it is an extra of its own.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from modeling.perception.overlays.backgrounds import Backgrounds
from modeling.perception.overlays.classes import REPORTED
from modeling.perception.overlays.render import Truth, render_sample

_VALIDATION_SEED = 1 << 20
_JPEG_QUALITY = 95
_SPLITS = {"train": "train", "val": "held_out"}  # ours, by YOLO's name


class MissingPackageError(Exception):
    """An extra is not installed; one line with the remedy."""


def write_dataset(
    backgrounds: Path, out: Path, *, num_train: int, num_validation: int, seed: int = 0,
    size_HW: tuple[int, int] = (384, 640),
) -> Path:  # fmt: skip
    """OUT/images/SPLIT/N.jpg, OUT/labels/SPLIT/N.txt and OUT/data.yaml, whose path it returns.

    A rendering that is there is not made again. Validation has other pictures and other fonts.
    """
    for name, count in (("train", num_train), ("val", num_validation)):
        split = _SPLITS[name]
        pictures = Backgrounds(backgrounds, split)
        images, labels = out / "images" / name, out / "labels" / name
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            text = labels / f"{number:06d}.txt"
            if text.exists():
                continue
            first = seed if name == "train" else _VALIDATION_SEED
            image, truth = render_sample(number, first, pictures, size_HW, split)
            quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
            cv2.imwrite(str(images / f"{number:06d}.jpg"), image[..., ::-1], quality)
            partial = text.with_suffix(".partial")
            partial.write_text(yolo_labels(truth))
            partial.replace(text)
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(REPORTED))
    data = out / "data.yaml"
    data.write_text(f"path: {out.resolve()}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return data


def yolo_labels(truth: Truth) -> str:
    """A line per box: class, middle and size in shares. Marks that count neither way are left."""
    lines = []
    for box, label, is_ignored in zip(truth.boxes_N4, truth.labels_N, truth.ignored_N, strict=True):
        if is_ignored or label >= len(REPORTED):
            continue
        left, top, right, bottom = np.clip(box, 0, 1)
        values = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        lines.append(" ".join([str(int(label)), *(f"{value:.6f}" for value in values)]))
    return "".join(f"{line}\n" for line in lines)


def train_yolo(
    model: str, out: Path, *, data: Path | None, epochs: int, side: int = 640, device: str = "cpu"
) -> tuple[Path, list[str]]:
    """Train a YOLO (`yolo11n.yaml`, or a .pt to go on from) and export it: ONNX file, classes.

    Without `data` the model, a .pt, is exported as it is. Raises MissingPackageError.
    """
    try:
        import ultralytics
    except ImportError as error:
        raise MissingPackageError(
            "ultralytics is not installed: pip install 'reelsieve[ultralytics]' (AGPL-3.0)"
        ) from error
    network: Any = ultralytics.YOLO(model)
    if data is not None:
        network.train(
            data=str(data), epochs=epochs, imgsz=side, device=device, project=str(out.resolve()),
            name="train", exist_ok=True, plots=False,
        )  # fmt: skip
        network = ultralytics.YOLO(str(out.resolve() / "train" / "weights" / "best.pt"))
    path = Path(network.export(format="onnx", imgsz=side, device=device))
    return path, [str(network.names[index]) for index in sorted(network.names)]


def config_lines(path: Path, classes: list[str]) -> str:
    """What to write into the pipeline's configuration; classes of other names are left out."""
    kinds = ", ".join(f'"{name}"' if name in REPORTED else '""' for name in classes)
    return f'[score.overlays]\nmodel = "path:{path}"\nlayout = "yolo"\nclasses = [{kinds}]\n'
