"""Confusion and reliability of the camera classes, as a table and a picture.

    python benchmarks/camera_reliability.py --media MEDIA --picture camera_reliability.png

The clips and judgements are those of `python -m pipeline evaluate --only camera`.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from pipeline.evaluate.camera import NUM_RENDERED, Judged, judge, steadiness
from pipeline.evaluate.camera_clips import real_clips, rendered_clips

_NUM_BINS = 8


def confusion_table(judged: Sequence[Judged]) -> str:
    """A row per label with what its clips were called."""
    rows = []
    for label in sorted({j.label or "mixed" for j in judged}):
        found = Counter(
            "failed" if j.found == "" else j.found or "mixed"
            for j in judged
            if (j.label or "mixed") == label
        )
        rows.append(f"{label:14} " + ", ".join(f"{n} {name}" for name, n in found.most_common()))
    return "\n".join(rows)


def draw_reliability(by_title: dict[str, dict[str, list[Judged]]], path: Path) -> None:
    """Share of right classes over confidence, one panel per set of clips."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(by_title), figsize=(4.2 * len(by_title), 4))
    for panel, (title, methods) in zip(panels, by_title.items(), strict=True):
        panel.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for method, judged in methods.items():
            named = [j for j in judged if j.found]
            confidence = np.array([j.confidence for j in named])
            right = np.array([j.found == j.label for j in named])
            bins = np.minimum((confidence * _NUM_BINS).astype(int), _NUM_BINS - 1)
            filled = [b for b in range(_NUM_BINS) if (bins == b).any()]
            x = [confidence[bins == b].mean() for b in filled]
            y = [right[bins == b].mean() for b in filled]
            size = [12 + 3 * int((bins == b).sum()) for b in filled]
            panel.plot(x, y, linewidth=1)
            panel.scatter(x, y, s=size, label=f"{method} ({len(named)} clips)")
        panel.set(title=title, xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
        panel.legend(loc="upper left", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Confusion and reliability of camera classes.")
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    arguments = parser.parse_args()
    rendered = judge(rendered_clips(arguments.media, NUM_RENDERED))
    real = {
        method: [steadiness(j) for j in judged]
        for method, judged in judge(real_clips(arguments.media)).items()
    }
    for title, methods in (("rendered", rendered), ("real", real)):
        for method, judged in methods.items():
            print(f"\n{title}, {method}\n{confusion_table(judged)}")
    draw_reliability(
        {"rendered, 14 classes": rendered, "real: static, handheld, moving": real},
        arguments.picture,
    )


if __name__ == "__main__":
    main()
