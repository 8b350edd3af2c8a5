"""Train the overlay detector, judge it on held-out renderings, export it.

    python -m modeling.perception.overlays train BACKGROUNDS OUT [--seconds 480] [--workers 14]
    python -m modeling.perception.overlays export OUT [--model-id NAME]

BACKGROUNDS is the file of `python -m benchmarks.overlays pack`. `train` called again goes on; it
ends with figures and thresholds in OUT/report.json. `export` writes OUT/overlays.onnx and needs
pydantic and onnx, which training does not.
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

MODEL_ID = "overlay-net-2"
_PRECISION = 0.95  # wanted of each kind's boxes on held-out renderings, from its threshold on
_REPORT = "report.json"
_log = logging.getLogger(__name__)


def main() -> None:
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.command == "train":
        _train(arguments)
    else:
        _export(arguments.out, arguments.model_id)


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


def _export(out: Path, model_id: str) -> None:
    from modeling.perception.overlays.export import export_detector

    network, step = load_averaged(out)
    report = json.loads((out / _REPORT).read_text())
    values = report["config"] | {"input_HW": tuple(report["config"]["input_HW"])}
    path = out / "overlays.onnx"
    sha256 = export_detector(
        network, path, thresholds=report["thresholds"], model_id=model_id,
        config=TrainConfig(**values),
    )  # fmt: skip
    _log.info("%s: step %d, %.2f MB, sha256 %s", path, step, path.stat().st_size / 1e6, sha256)


if __name__ == "__main__":
    main()
