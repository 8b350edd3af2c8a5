"""How far the overlay network's confidence and the quality network's score can be trusted.

    python -m benchmarks.reliability_networks --clips CLIPS --media MEDIA --picture FILE

Overlays: on the clips of `python -m benchmarks.overlays clips` every box that is found in enough
frames, from a score of 0.2 on; right where a drawn overlay of its kind overlaps it by half. Plain
clips count, too. Quality: the score of sources that the network has not learned from, as they are
and at six levels of each kind of degradation. A score is no probability, so there is no calibration
error: what counts is how evenly it falls, said by the rank correlation of a source's seven scores
with their levels.
"""

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from benchmarks.reliability import Judgements, draw_panel, show
from pipeline.evaluate.degradations import KINDS
from pipeline.evaluate.overlays import LABEL_FILE, Found, judge, read_clip, wanted_of_clip
from pipeline.evaluate.quality import score_by, sources
from pipeline.onnx_model import OnnxModel
from pipeline.score.config import ScoreConfig
from pipeline.score.overlay_detector import OverlayDetector, voted
from schemas.overlay_network import OVERLAY_KINDS

_LEAST = 0.2
Floats = NDArray[np.float64]


def overlay_judgements(clips: Path) -> Judgements:
    config = ScoreConfig().overlays
    detector = OverlayDetector(OnnxModel("overlays", kind="overlay"), config)
    pairs: list[tuple[float, bool]] = []
    for name, label in json.loads((clips / LABEL_FILE).read_text()).items():
        clip = read_clip(clips / name, len(label["frames"]))
        hits, num_frames = detector.hits(clip, _LEAST)
        wanted = wanted_of_clip(label["frames"], num_frames)
        boxes = voted(hits, num_frames, config.min_presence)
        found = [Found(box.kind, box.box, box.confidence) for box in boxes]
        for kind in OVERLAY_KINDS:
            pairs += judge(label["source"], kind, found, wanted).pairs
    return Judgements.of(pairs)


def quality_by_level(media: Path, max_clips: int) -> dict[str, Floats]:
    """Sources x 7 per kind: as it is, then from the mildest level to the strongest."""
    network = OnnxModel("quality", kind="quality")
    rows: dict[str, list[list[float]]] = defaultdict(list)
    for source in sources(media, max_clips):
        first = score_by(network, source.frames_THWC)
        for kind, step in KINDS.items():
            worse = [step.apply(source.frames_THWC, amount) for amount in step.amounts]
            rows[kind].append([first, *(score_by(network, frames) for frames in worse)])
    return {kind: np.array(scores) for kind, scores in rows.items()}


def rank_correlation(scores_SL: Floats) -> float:
    """Spearman's, of the scores with the levels' order turned, mean over sources."""
    ranks_SL = scores_SL.argsort(axis=1).argsort(axis=1)
    best_first = np.arange(scores_SL.shape[1])[::-1]
    return float(np.mean([np.corrcoef(ranks, best_first)[0, 1] for ranks in ranks_SL]))


def _draw(overlays: Judgements, quality: Mapping[str, Floats], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(8.4, 3.6))
    draw_panel(panels[0], "overlays", overlays)
    for kind, scores_SL in quality.items():
        middle, sd = scores_SL.mean(axis=0), scores_SL.std(axis=0)
        panels[1].errorbar(np.arange(len(middle)), middle, sd, label=kind, linewidth=1, capsize=2)
    panels[1].set(title="quality", xlabel="level", ylabel="score, mean and spread over sources")
    panels[1].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description="Reliability of overlays and of quality.")
    for name in ("clips", "media", "picture"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--max-clips", type=int, default=12, help="of real videos, for quality")
    arguments = parser.parse_args()
    overlays = overlay_judgements(arguments.clips)
    show("overlays", overlays)
    quality = quality_by_level(arguments.media, arguments.max_clips)
    print("\n| quality, kind | rank correlation | as it is | level 1 | 2 | 3 | 4 | 5 | 6 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, scores_SL in quality.items():
        means = " | ".join(f"{value:.2f}" for value in scores_SL.mean(axis=0))
        print(f"| {kind} | {rank_correlation(scores_SL):.3f} | {means} |")
    _draw(overlays, quality, arguments.picture)


if __name__ == "__main__":
    main()
