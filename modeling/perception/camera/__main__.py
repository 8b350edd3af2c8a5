"""Train and export the camera movement network.

    python -m modeling.perception.camera FEATURES OUT [--epochs 16]

FEATURES holds what `python benchmarks/camera_features.py` renders. OUT gets the checkpoint, from
which a second call goes on, camera.onnx and report.json.
"""

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path

from modeling.perception.camera.calibration import calibration_error, class_thresholds
from modeling.perception.camera.export import export_camera
from modeling.perception.camera.train import TrainConfig, train
from schemas.camera_network import CAMERA_CLASSES

MODEL_ID = "camera-net-1"
_PRECISION = 0.97  # on rendered clips; real ones are harder
_log = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the camera network.")
    parser.add_argument("features", type=Path, help="folder of rendered features")
    parser.add_argument("out", type=Path, help="folder for checkpoint, ONNX file and report")
    parser.add_argument("--epochs", type=int, default=TrainConfig().num_epochs)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = replace(TrainConfig(), num_epochs=arguments.epochs)
    trained = train(arguments.features, arguments.out, config)
    assert trained is not None
    thresholds = class_thresholds(trained.probability_NK, trained.label_N, precision=_PRECISION)
    sha256 = export_camera(
        trained.network,
        arguments.out / "camera.onnx",
        temperature=trained.temperature,
        thresholds=thresholds,
        model_id=MODEL_ID,
        config=config,
    )
    hit = trained.probability_NK.argmax(axis=1) == trained.label_N
    report = {
        "sha256": sha256,
        "temperature": trained.temperature,
        "validation_clips": len(trained.label_N),
        "validation_accuracy": float(hit.mean()),
        "validation_calibration_error": calibration_error(trained.probability_NK, trained.label_N),
        "thresholds": dict(zip(CAMERA_CLASSES, thresholds, strict=True)),
    }
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    _log.info("%s", json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
