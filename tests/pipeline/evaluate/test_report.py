"""What is shown, written and refused, with a part that is known in advance."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.__main__ import main
from pipeline.evaluate.figures import OURS, EvaluationError, Figure
from pipeline.evaluate.report import PARTS, Part, evaluate_media, figures_json

FIGURES = [
    Figure("coins", "heads", OURS, 0.5, 0.4, 0.6, 1234, "throws"),
    Figure("coins", "heads", "a peer", 0.25, 0.2, 0.3, 1234, "throws"),
]
COINS = {"coins": Part(lambda media: FIGURES, ("gt/coins.json",))}


def test_ours_stands_beside_the_peer_with_count_and_interval(tmp_path: Path) -> None:
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt/coins.json").touch()
    console = Console(record=True, width=120)
    evaluate_media(tmp_path, console, json_path=tmp_path / "f.json", parts=COINS)
    lines = console.export_text().splitlines()
    (ours,) = [line for line in lines if "ours" in line]
    assert "heads" in ours
    assert "0.500" in ours
    assert "0.400 to 0.600" in ours
    assert "1,234 throws" in ours
    assert any("a peer" in line and "0.250" in line for line in lines)
    written = json.loads((tmp_path / "f.json").read_text())
    assert [row["method"] for row in written] == ["a peer", OURS]
    assert written[1]["low"] == 0.4


def test_an_extra_part_without_its_files_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    coins = COINS["coins"]
    parts = {"coins": Part(coins.evaluate, coins.needs, is_extra=True)}
    console = Console(record=True)
    evaluate_media(tmp_path, console, parts=parts)
    assert "heads" not in console.export_text()
    with pytest.raises(EvaluationError, match=r"no gt/coins\.json"):
        evaluate_media(tmp_path, console, only=["coins"], parts=parts)


def test_the_order_of_figures_does_not_change_the_file() -> None:
    assert figures_json(FIGURES) == figures_json(FIGURES[::-1])


def test_missing_labels_are_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no gt/coins\.json, which the evaluation of coins"):
        evaluate_media(tmp_path, Console(), parts=COINS)


def test_a_folder_without_labels_is_one_line_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--media", str(tmp_path), "--only", "text"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: no gt/ocr_icdar15.json, which the evaluation of text needs\n"
    )


def test_an_unknown_part_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        EvaluationError, match="'shoots'; there are shots, hard-shots, duplicates, borders"
    ):
        evaluate_media(tmp_path, Console(), only=["shoots"], parts=PARTS)
