"""LoRA on a tiny random model: it learns, resumes to the bit, and its adapter is checked."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling.rewrite.checkpoint import RunFolder
from modeling.rewrite.errors import RewriteError
from modeling.rewrite.language_model import ADAPTER_FILE, load_language_model
from modeling.rewrite.pairs import make_pairs, read_pairs
from modeling.rewrite.prompt import messages
from modeling.rewrite.synthetic import synthetic_captions
from modeling.rewrite.train import LoraTrainConfig, LoraTrainer
from tests.modeling.rewrite.tiny import save_tiny

_CONFIG = LoraTrainConfig(
    batch_size=2,
    max_tokens=2048,
    num_eval_pairs=2,
    save_every=1,
    dropout=0.1,
    learning_rate=1e-2,
)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder and pairs."""
    folder = tmp_path_factory.mktemp("rewrite")
    save_tiny(folder / "model")
    make_pairs(synthetic_captions(8, seed=0), folder / "pairs", seed=0, held_out_share=0.3)
    return folder


def _trainer(ground: Path, output: Path, **changes: Any) -> LoraTrainer:
    info, train = read_pairs(ground / "pairs", "train")
    _, held_out = read_pairs(ground / "pairs", "held_out")
    return LoraTrainer(
        load_language_model(str(ground / "model")),
        _CONFIG.model_copy(update=changes),
        info=info,
        train=train,
        held_out=held_out,
        output=output,
    )


def _curve(output: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def finished(ground: Path) -> Path:
    output = ground / "whole"
    assert _trainer(ground, output).run() == output / "adapter"
    return output


def test_it_learns(finished: Path) -> None:
    curve = _curve(finished)
    assert curve[-1]["held_out_loss"] < curve[0]["held_out_loss"] - 0.1


def test_a_run_that_was_stopped_gives_the_same_bytes(ground: Path, finished: Path) -> None:
    output = ground / "stopped"
    assert _trainer(ground, output).run(stop_at=2) is None
    # A step that was logged but not saved is forgotten.
    RunFolder(output).log({"step": 3, "loss": 0.0})
    _trainer(ground, output).run()
    for name in ("adapter_model.safetensors", ADAPTER_FILE):
        whole, stopped = (finished / "adapter" / name, output / "adapter" / name)
        assert whole.read_bytes() == stopped.read_bytes()
    assert _curve(output) == _curve(finished)


def test_another_run_may_not_use_the_folder(ground: Path, finished: Path) -> None:
    with pytest.raises(RewriteError, match=r"holds another run \(it differs in config\)"):
        _trainer(ground, finished, rank=4).run()


def test_a_broken_checkpoint_is_named(ground: Path) -> None:
    output = ground / "broken"
    _trainer(ground, output).run(stop_at=1)
    [path] = (output / "checkpoints").glob("*.pt")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RewriteError, match=r"step-000001.pt cannot be read"):
        _trainer(ground, output).run()


def test_the_adapter_changes_the_model_that_it_was_trained_on(ground: Path, finished: Path) -> None:
    plain = load_language_model(str(ground / "model"))
    tuned = load_language_model(str(ground / "model"), adapter=finished / "adapter")
    ids = torch.tensor([plain.token_ids(messages("a fox", "normal", "short"))])
    with torch.no_grad():
        assert not torch.allclose(plain.model(ids).logits, tuned.model(ids).logits)
    assert tuned.adapter is not None
    assert tuned.adapter.captioners == {"synthetic": 8}


def test_an_adapter_of_another_model_is_refused(ground: Path, finished: Path) -> None:
    save_tiny(ground / "other", seed=1)
    with pytest.raises(RewriteError, match=r"was trained on .*model"):
        load_language_model(str(ground / "other"), adapter=finished / "adapter")


@pytest.mark.parametrize("damage", ["weights", "config", "no record", "no folder"])
def test_an_unreadable_adapter_is_one_line(
    ground: Path, finished: Path, tmp_path: Path, damage: str
) -> None:
    for file in (finished / "adapter").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if damage == "weights":
        (tmp_path / "adapter_model.safetensors").write_bytes(b"\x00" * 50)
    elif damage == "config":
        (tmp_path / "adapter_config.json").write_text("{")
    elif damage == "no record":
        (tmp_path / ADAPTER_FILE).unlink()
    adapter = tmp_path if damage != "no folder" else tmp_path / "none"
    with pytest.raises(RewriteError, match="adapter") as caught:
        load_language_model(str(ground / "model"), adapter=adapter)
    assert "\n" not in str(caught.value)
