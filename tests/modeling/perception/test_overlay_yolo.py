import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from modeling.perception.overlays import yolo
from modeling.perception.overlays.classes import CLASS_INDEX, REPORTED, SCENE_TEXT
from modeling.perception.overlays.render import Truth
from tests.modeling.perception.overlay_backgrounds import write_small_backgrounds


def test_labels_are_middle_and_size_and_leave_out_what_counts_neither_way() -> None:
    truth = Truth(
        np.array([[0.1, 0.2, 0.3, 0.6], [0, 0, 1, 1], [0.5, 0.5, 0.6, 0.6]], np.float32),
        np.array([CLASS_INDEX["subtitle"], CLASS_INDEX["border"], CLASS_INDEX[SCENE_TEXT]]),
        np.array([False, True, False]),
    )
    assert yolo.yolo_labels(truth) == "3 0.200000 0.400000 0.200000 0.400000\n"


def test_a_dataset_goes_on_where_it_was_ended_and_is_the_same(tmp_path: Path) -> None:
    backgrounds = write_small_backgrounds(tmp_path / "b.zip")

    def write(out: Path, num_train: int) -> dict[str, bytes]:
        yolo.write_dataset(
            backgrounds, out, num_train=num_train, num_validation=2, size_HW=(96, 160)
        )
        return {
            str(path.relative_to(out)): path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.is_file() and path.name != "data.yaml"
        }

    write(tmp_path / "parts", 2)
    found = write(tmp_path / "parts", 5)
    assert found == write(tmp_path / "whole", 5)
    assert len([name for name in found if name.startswith("labels/train/")]) == 5
    picture = cv2.imread(str(tmp_path / "whole" / "images" / "val" / "000000.jpg"))
    assert picture is not None
    assert picture.shape == (96, 160, 3)
    text = (tmp_path / "whole" / "data.yaml").read_text()
    assert f"  {len(REPORTED) - 1}: {REPORTED[-1]}\n" in text


def test_training_goes_through_ultralytics_and_ends_in_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Any]] = []

    class Network:
        def __init__(self, model: str) -> None:
            calls.append(("load", model))
            self.names = {0: "watermark", 1: "cat"}

        def train(self, **options: Any) -> None:
            calls.append(("train", options["data"]))

        def export(self, **options: Any) -> str:
            calls.append(("export", options["format"]))
            return "best.onnx"

    monkeypatch.setitem(sys.modules, "ultralytics", SimpleNamespace(YOLO=Network))
    data = tmp_path / "data.yaml"
    path, classes = yolo.train_yolo("y.yaml", tmp_path, data=data, epochs=1)
    best = str(tmp_path.resolve() / "train" / "weights" / "best.pt")
    assert calls == [("load", "y.yaml"), ("train", str(data)), ("load", best), ("export", "onnx")]
    lines = yolo.config_lines(path, classes)
    assert 'model = "path:best.onnx"\nlayout = "yolo"\nclasses = ["watermark", ""]\n' in lines
    calls.clear()
    yolo.train_yolo("mine.pt", tmp_path, data=None, epochs=1)
    assert calls == [("load", "mine.pt"), ("export", "onnx")]


def test_without_the_package_the_command_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['ultralytics'] = None\n"
        f"sys.argv = ['overlays', 'yolo', 'none', {str(tmp_path)!r}, '--model', 'mine.pt']\n"
        "from modeling.perception.overlays.__main__ import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "error: ultralytics is not installed: pip install 'reelsieve[ultralytics]' (AGPL-3.0)"
    )
