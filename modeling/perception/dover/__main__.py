"""Turn released DOVER weights into the ONNX file that the score pass loads.

    python -m modeling.perception.dover export --weights DOVER.pth --out dover.onnx

then `model = "path:dover.onnx"` under `[score.quality]`. DOVER.pth, DOVER_plus_plus.pth and
DOVER-Mobile.pth are told apart by what they hold. Their licence is their authors' (S-Lab 1.0, not
commercial, since August 2024).
"""

import argparse
from pathlib import Path

from modeling.perception.dover.export import export_dover
from modeling.perception.dover.network import WeightsError


def main() -> None:
    parser = argparse.ArgumentParser(description="Export DOVER to ONNX.")
    export = parser.add_subparsers(dest="command", required=True).add_parser("export")
    export.add_argument("--weights", type=Path, required=True, help="a released .pth")
    export.add_argument("--out", type=Path, default=Path("dover.onnx"), help="where to write")
    options = parser.parse_args()
    try:
        sha256 = export_dover(options.weights, options.out)
    except WeightsError as error:
        parser.error(str(error))
    print(f"{options.out}: sha256 {sha256}")  # noqa: T201


if __name__ == "__main__":
    main()
