"""Train the overlay detector, judge it on held-out renderings, export it.

    python -m modeling.perception.overlays train BACKGROUNDS OUT [--seconds 480] [--workers 14]
    python -m modeling.perception.overlays export OUT [--model-id NAME] [--threshold KIND=SCORE ...]
    python -m modeling.perception.overlays dataset BACKGROUNDS DATA [--train 8000]
    python -m modeling.perception.overlays yolo DATA/data.yaml OUT [--model yolo11n.yaml]

BACKGROUNDS is the file of `python -m benchmarks.overlays pack`. `train` called again goes on; it
ends with figures and thresholds in OUT/report.json. `export` writes OUT/overlays.onnx and needs
pydantic and onnx, which training does not; `--threshold` replaces the report's for a kind, where
clips have shown another to be better.

`dataset` writes the renderings as YOLO reads them, `yolo` trains one by ultralytics (the extra
`ultralytics`, AGPL-3.0), exports it and prints the lines that configure it. `yolo none OUT --model
MINE.pt` exports a model of your own.
"""

import argparse
import json
import logging
from dataclasses import fields, replace
from pathlib import Path

import torch

from modeling.perception.overlays.train import (
    Limits,
    TrainConfig,
    load_averaged,
    train,
    validate,
)
from modeling.perception.overlays.yolo import (
    MissingPackageError,
    config_lines,
    train_yolo,
    write_dataset,
)

MODEL_ID = "overlay-net-3"
_PRECISION = 0.95  # wanted of each kind's boxes on held-out renderings, from its threshold on
_REPORT = "report.json"
_log = logging.getLogger(__name__)


def main() -> None:
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    commands = {"train": _train, "export": _export, "dataset": _dataset, "yolo": _yolo}
    commands[arguments.command](arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The overlay detector.")
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train, go on, and judge")
    training.add_argument("backgrounds", type=Path)
    training.add_argument("out", type=Path)
    training.add_argument("--seconds", type=float, default=None, help="of all calls together")
    training.add_argument("--workers", type=int, default=0, help="processes that render")
    training.add_argument("--size", type=int, nargs=2, default=None, metavar=("H", "W"))
    training.add_argument("--init", type=Path, help="averaged.pt of another training")
    defaults = TrainConfig()
    for name in ("num_steps", "batch_size", "repeats", "num_validation"):
        option = f"--{name.removeprefix('num_').replace('_', '-')}"
        training.add_argument(option, dest=name, type=int, default=getattr(defaults, name))
    for name in ("learning_rate", "watermark_factor"):
        option = f"--{name.replace('_', '-')}"
        training.add_argument(option, type=float, default=getattr(defaults, name))
    training.add_argument("--seed", type=int, default=defaults.seed, help="of the renderings")
    exporting = commands.add_parser("export", help="write the ONNX file")
    exporting.add_argument("out", type=Path)
    exporting.add_argument("--model-id", default=MODEL_ID)
    exporting.add_argument("--threshold", action="append", default=[], metavar="KIND=SCORE")
    writing = commands.add_parser("dataset", help="write the renderings as YOLO reads them")
    writing.add_argument("backgrounds", type=Path)
    writing.add_argument("out", type=Path)
    writing.add_argument("--train", type=int, default=8000)
    writing.add_argument("--validation", type=int, default=600)
    other = commands.add_parser("yolo", help="train and export a YOLO by ultralytics")
    other.add_argument("data", type=Path, help="data.yaml; none: export --model as it is")
    other.add_argument("out", type=Path)
    other.add_argument("--model", default="yolo11n.yaml", help="a .yaml, or a .pt to go on from")
    other.add_argument("--epochs", type=int, default=50)
    other.add_argument("--side", type=int, default=640)
    other.add_argument("--device", default="cpu")
    return parser


def _train(arguments: argparse.Namespace) -> None:
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    config = replace(
        TrainConfig(), num_steps=arguments.num_steps, batch_size=arguments.batch_size,
        repeats=arguments.repeats, num_validation=arguments.num_validation,
        learning_rate=arguments.learning_rate, watermark_factor=arguments.watermark_factor,
        seed=arguments.seed,
    )  # fmt: skip
    if arguments.size is not None:
        config = replace(config, input_HW=tuple(arguments.size))
    limits = Limits(seconds=arguments.seconds, num_workers=arguments.workers)
    network = train(arguments.backgrounds, arguments.out, config, limits, init=arguments.init)
    assert network is not None
    figures, thresholds = validate(
        network, arguments.backgrounds, config, num_workers=arguments.workers, precision=_PRECISION
    )
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    report = {"figures": figures, "thresholds": thresholds, "config": values}
    (arguments.out / _REPORT).write_text(json.dumps(report, indent=1) + "\n")
    _log.info("%s", json.dumps(report, indent=1))


def _dataset(arguments: argparse.Namespace) -> None:
    data = write_dataset(
        arguments.backgrounds, arguments.out, num_train=arguments.train,
        num_validation=arguments.validation,
    )  # fmt: skip
    _log.info("%s", data)


def _yolo(arguments: argparse.Namespace) -> None:
    data = None if str(arguments.data) == "none" else arguments.data
    try:
        path, classes = train_yolo(
            arguments.model, arguments.out, data=data, epochs=arguments.epochs,
            side=arguments.side, device=arguments.device,
        )  # fmt: skip
    except MissingPackageError as error:
        raise SystemExit(f"error: {error}") from error
    _log.info("%s", config_lines(path, classes))


def _export(arguments: argparse.Namespace) -> None:
    out, model_id = arguments.out, arguments.model_id
    from modeling.perception.overlays.export import export_detector

    network, step = load_averaged(out)
    report = json.loads((out / _REPORT).read_text())
    values = report["config"] | {"input_HW": tuple(report["config"]["input_HW"])}
    path = out / "overlays.onnx"
    sha256 = export_detector(
        network, path, thresholds=replaced(report["thresholds"], arguments.threshold),
        model_id=model_id,
        config=TrainConfig(**values),
    )  # fmt: skip
    _log.info("%s: step %d, %.2f MB, sha256 %s", path, step, path.stat().st_size / 1e6, sha256)


def replaced(found: dict[str, float], by: list[str]) -> dict[str, float]:
    """Raises SystemExit for a kind that the detector does not name, or no score in [0, 1]."""
    thresholds = dict(found)
    for text in by:
        kind, _, value = text.partition("=")
        try:
            score = float(value)
        except ValueError:
            score = -1.0
        if kind not in found or not 0 <= score <= 1:
            raise SystemExit(f"error: --threshold {text}: need KIND=SCORE of {', '.join(found)}")
        thresholds[kind] = score
    return thresholds


if __name__ == "__main__":
    main()
