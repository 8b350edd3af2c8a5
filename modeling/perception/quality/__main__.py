"""Train and export the quality network.

    python -m modeling.perception.quality DATA OUT [--epochs 12]

DATA holds what `python benchmarks/quality_pictures.py` renders. OUT gets the checkpoint, from which
a second call goes on, quality.onnx and report.json.
"""

import argparse
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

from modeling.perception.quality.data import read_groups
from modeling.perception.quality.export import export_quality
from modeling.perception.quality.train import TrainConfig, train, validate

MODEL_ID = "quality-net-1"
_log = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the quality network.")
    parser.add_argument("data", type=Path, help="folder of rendered groups")
    parser.add_argument("out", type=Path, help="folder for checkpoint, ONNX file and report")
    parser.add_argument("--epochs", type=int, default=TrainConfig().num_epochs)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    config = replace(TrainConfig(), num_epochs=arguments.epochs)
    network = train(arguments.data, arguments.out, config)
    assert network is not None
    found = validate(network, read_groups(arguments.data, "validation"), config.side_px)
    sha256 = export_quality(
        network, arguments.out / "quality.onnx", model_id=MODEL_ID, config=config
    )
    report = {"sha256": sha256, **asdict(found)}
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    _log.info("%s", json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
