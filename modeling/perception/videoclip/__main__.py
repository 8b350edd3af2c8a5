"""Train a video-text model on shards and export its video tower for the embed pass.

    python -m modeling.perception.videoclip --shards MANIFEST --out DIR [--steps N] [--loss sigmoid]

MANIFEST is a `manifest.json` of the curation (give --shards several times for more). DIR gets the
decoded frames, the checkpoint, from which a second call goes on, report.json, the text tower and
videoclip.onnx, which `model = "path:DIR/videoclip.onnx"` in the configuration of the embed pass
then uses.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from pydantic import ValidationError

from modeling.data.errors import DataError
from modeling.perception.videoclip.config import Loss, TextKind, Trunk, VideoClipConfig
from modeling.perception.videoclip.export import (
    VIDEO_FILE,
    export_videoclip,
    is_untrained,
    write_report,
)
from modeling.perception.videoclip.train import train

_LOG = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    default = VideoClipConfig()
    parser = argparse.ArgumentParser(
        prog="python -m modeling.perception.videoclip",
        description="Train a video-text model on shards.",
    )
    parser.add_argument("--shards", action="append", required=True, metavar="MANIFEST")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trunk", choices=get_args(Trunk), default=default.trunk)
    parser.add_argument("--train-trunk", action="store_true", help="let the packaged trunk learn")
    parser.add_argument("--text", choices=get_args(TextKind), default=default.text)
    parser.add_argument("--train-text", action="store_true", help="let the packaged text learn")
    parser.add_argument("--loss", choices=get_args(Loss), default=default.loss)
    parser.add_argument("--frames", type=int, default=default.num_frames)
    parser.add_argument("--side", type=int, default=default.side)
    parser.add_argument("--steps", type=int, default=default.num_steps)
    parser.add_argument("--warmup", type=int, default=default.warmup_steps)
    parser.add_argument("--batch", type=int, default=default.batch_size)
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    parser.add_argument("--held-out", type=float, default=default.validation_share)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--checkpoint-every", type=int, default=500, metavar="STEPS")
    parser.add_argument("--device", help="cpu, cuda; default: cuda where there is one")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        config = VideoClipConfig(
            trunk=options.trunk,
            train_trunk=options.train_trunk,
            text=options.text,
            train_text=options.train_text,
            loss=options.loss,
            num_frames=options.frames,
            side=options.side,
            num_steps=options.steps,
            warmup_steps=options.warmup,
            batch_size=options.batch,
            learning_rate=options.learning_rate,
            validation_share=options.held_out,
            seed=options.seed,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        parser.error(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        trained = train(
            options.shards,
            options.out,
            config,
            device=device,
            checkpoint_every=options.checkpoint_every,
        )
    except (DataError, FileNotFoundError) as error:
        parser.error(str(error))
    sha256 = export_videoclip(trained.model, config, trained.captioners, options.out)
    held_out = trained.held_out
    report = {
        "config": config.model_dump(mode="json"),
        "captioners": trained.captioners,
        "untrained_for_retrieval": is_untrained(trained.captioners),
        "seen": trained.seen.model_dump(),
        "held_out": held_out.model_dump() if held_out else None,
        VIDEO_FILE: sha256,
    }
    write_report(options.out / "report.json", report)
    for name, figures in (("seen", trained.seen), ("held-out", held_out)):
        if figures is not None:
            _LOG.info(
                "%s: %d samples, text to video at 1 %.3f (chance %.3f)",
                name,
                figures.num_samples,
                figures.text_to_video_at_1,
                figures.chance,
            )
    _LOG.info("%s: sha256 %s", options.out / VIDEO_FILE, sha256)


if __name__ == "__main__":
    main()
