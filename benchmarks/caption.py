"""Speed of constrained captions: a vision-language model of random weights on one device.

    python benchmarks/caption.py                  # Qwen2.5-VL of about 3 B weights, on a GPU
    python benchmarks/caption.py --tiny           # a few thousand weights, on a CPU: does it run?

Random weights write what the grammar lets them, up to 320 tokens: what is measured is tokens per
second with the grammar and without it, and clips per second at that length, never how good words
are. The vocabulary has a real one's size, for the cost of a grammar grows with it, and splits the
instructions into more tokens than a real one. Nothing is downloaded.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from pipeline.caption import local_model
from pipeline.caption.backend import WindowRequest, window_request
from pipeline.caption.config import (
    AnswerLimits,
    FrameBudget,
    SamplingConfig,
    TransformersConfig,
    VlmConfig,
)
from pipeline.caption.grammar import ConstrainedDraw, draw
from pipeline.caption.local_model import TransformersBackend
from tests.pipeline.caption.tiny_vlm import write_tiny_vlm

_DRAW = "ConstrainedDraw"  # of local_model: what is measured
_REAL_VOCABULARY = 151_936
_TEXT_3B = {
    "vocab_size": _REAL_VOCABULARY,
    "hidden_size": 2048,
    "intermediate_size": 11_008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1_000_000.0,
        "mrope_section": [16, 24, 24],
    },
}
_VISION_3B = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 2048,
}


def make_model(folder: Path, device: str) -> tuple[Any, Any]:
    """Processor of the tiny model; weights of the published 3 B shapes, drawn on the device."""
    import transformers

    library = cast(Any, transformers)
    write_tiny_vlm(folder, num_tokens=_REAL_VOCABULARY - 64)
    processor = library.AutoProcessor.from_pretrained(folder)
    processor.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 448 * 448}
    if device == "cpu":
        return library.AutoModelForImageTextToText.from_pretrained(folder), processor
    config = library.AutoConfig.from_pretrained(folder).to_dict()
    special = {k: config["text_config"][k] for k in ("bos_token_id", "eos_token_id")}
    config["text_config"] = _TEXT_3B | special | {"pad_token_id": special["bos_token_id"]}
    config["vision_config"] = _VISION_3B
    config["tie_word_embeddings"] = True
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = library.Qwen2_5_VLForConditionalGeneration(library.Qwen2_5_VLConfig(**config))
    torch.set_default_dtype(torch.float32)
    return model.to(device=device, dtype=torch.bfloat16), processor


def make_requests(count: int, config: VlmConfig) -> list[WindowRequest]:
    """Noise in the budget's size: what is in a picture changes no speed."""
    dice = np.random.default_rng(0)
    num, side = config.frames.num_frames, config.frames.max_side
    times = tuple(round((place + 0.5) / 2, 3) for place in range(num))
    shape = (num, side * 9 // 16, side, 3)
    return [
        window_request(f"{number:032x}", 0, times, dice.integers(0, 255, shape, dtype=np.uint8))
        for number in range(count)
    ]


class FreeDraw:
    """The same draw without a grammar, to see what the grammar costs. Ends at the token limit."""

    def __init__(self, maker: Any, rows: Any, num_prompt_tokens: int) -> None:
        self._rows = rows
        self._generators: list[torch.Generator] | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._generators is None:
            self._generators = [
                torch.Generator(scores.device).manual_seed(row.seed) for row in self._rows
            ]
        logits = scores.float()
        drawn = draw(logits, self._rows, self._generators)
        only = torch.full_like(logits, float("-inf"))
        return only.scatter_(1, drawn[:, None], 0.0).to(scores.dtype)


def measure(
    backend: TransformersBackend, requests: list[WindowRequest], batch: int, device: str
) -> dict[str, float]:
    _wait(device)
    started = time.perf_counter()
    described = list(backend.describe(requests))
    _wait(device)
    seconds = time.perf_counter() - started
    answer = sum(one.usage.answer_tokens or 0 for one in described)
    prompt = sum(one.usage.prompt_tokens or 0 for one in described)
    return {
        "batch": batch,
        "clips": len(described),
        "seconds": round(seconds, 2),
        "clips_per_s": round(len(described) / seconds, 3),
        "clips_per_gpu_hour": round(3600 * len(described) / seconds),
        "prompt_tokens_per_clip": round(prompt / len(described)),
        "answer_tokens_per_clip": round(answer / len(described)),
        "answer_tokens_per_s": round(answer / seconds, 1),
    }


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 64])
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    device = "cpu" if options.tiny else "cuda"
    frames = FrameBudget(num_frames=2, max_side=56) if options.tiny else FrameBudget()
    limits = AnswerLimits(short_chars=120, dense_chars=600, background_chars=150)
    sampling = SamplingConfig(temperature=1.0, num_tries=1, max_tokens=320)
    config = VlmConfig(frames=frames, answer=limits, sampling=sampling)
    with tempfile.TemporaryDirectory() as folder:
        model, processor = make_model(Path(folder), device)
    num_weights = sum(weight.numel() for weight in model.parameters())
    name = "CPU" if device == "cpu" else torch.cuda.get_device_name()
    versions = {"torch": torch.__version__, "device": name, "weights": num_weights}
    print(json.dumps({"random weights, not a captioner": versions}))
    figures = []
    batches = [2] if options.tiny else options.batches
    draws: dict[str, Any] = {"grammar": ConstrainedDraw, "free": FreeDraw}
    for batch in batches:
        local = TransformersConfig(model="random", device=device, batch_size=batch)
        backend = TransformersBackend(config, local)
        backend.use(model, processor)
        for kind, drawing in draws.items():
            setattr(local_model, _DRAW, drawing)
            list(backend.describe(make_requests(1, config)))  # warm
            found = measure(backend, make_requests(batch, config), batch, device)
            figures.append({"draw": kind, **found})
            print(json.dumps(figures[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
