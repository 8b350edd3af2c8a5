"""The commands, by their exit status and the one line that they leave."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modeling.rewrite.__main__ import app
from modeling.rewrite.answer import MAX_CHARS
from tests.modeling.rewrite.tiny import save_tiny


@pytest.fixture
def short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model fills every text to its end."""
    for name in MAX_CHARS:
        monkeypatch.setitem(MAX_CHARS, name, 20)


def _refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder)
    return str(folder)


@pytest.mark.usefixtures("short_texts")
def test_a_prompt_becomes_a_caption(model: str) -> None:
    arguments = ["apply", "--prompt", "three foxes run", "--model", model, "--revisions", "0"]
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["text"].startswith("Three foxes run.")
    assert report["checks"] == [
        {"kind": "number", "text": "three foxes run", "kept_by": "restored"}
    ]


def test_bad_input_is_one_line(tmp_path: Path, model: str) -> None:
    assert _refusal("apply", "--prompt", " ") == "error: the prompt is empty"
    assert "at most 2000" in _refusal("apply", "--prompt", "x" * 102_400)
    assert "cannot be loaded" in _refusal("apply", "--prompt", "a", "--model", str(tmp_path))
    assert "is no adapter" in _refusal(
        "apply", "--prompt", "a", "--model", model, "--adapter", str(tmp_path)
    )
    assert "go together" in _refusal("apply", "--prompt", "a", "--endpoint", "http://x/v1")
    assert "name --shards" in _refusal("make-pairs", "--output", str(tmp_path))
    missing = ["--pairs", str(tmp_path / "none")]
    assert "make-pairs writes it" in _refusal("train", *missing, "--output", str(tmp_path))
    assert "make-pairs writes it" in _refusal("evaluate", *missing)
    setting = ["--set", "rank=none"]
    assert "rank" in _refusal("train", *missing, "--output", str(tmp_path), *setting)


def test_pairs_are_made_and_a_tiny_model_is_judged_on_them(tmp_path: Path, model: str) -> None:
    pairs = ["make-pairs", "--output", str(tmp_path), "--synthetic", "12", "--held-out", "0.4"]
    assert CliRunner().invoke(app, pairs).exit_code == 0
    report = tmp_path / "report.json"
    arguments = ["evaluate", "--pairs", str(tmp_path), "--num", "1", "--model", model]
    arguments += ["--wording", "short", "--revisions", "0", "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, "--report", str(report)])
    assert result.exit_code == 0, result.output
    found = json.loads(report.read_text())
    assert found["valid"] == {"num": 1, "of": 1}
    assert found["short"]["num"] == 0
