"""Shot boundaries against labels: F1 within two frames, ours beside plain peers in one run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.figures import OURS, EvaluationError, Figure
from pipeline.evaluate.interval import bootstrap
from pipeline.evaluate.shot_labels import Counts, LabelledVideo, labelled_videos, match
from pipeline.evaluate.shot_methods import (
    gather_all,
    pyscenedetect_cuts,
    split_cuts,
    transnet_cuts,
    without_transnet,
)
from pipeline.split.config import EvidenceConfig, SplitConfig
from pipeline.split.evidence import Evidence

PART = "shots"
OURS_WITHOUT = "ours without TransNetV2"
TRANSNET = "TransNetV2 alone, at 0.5"
LEFT_OUT = ", threshold chosen on the other files"
_MEASURE = "F1 within 2 frames"
# What leaving files out chooses among, for each of the two thresholds that decide most.
_STRENGTHS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45)
_PROBABILITIES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def evaluate_shots(
    media: Path, config: SplitConfig | None = None, *, with_transnet_alone: bool = True
) -> list[Figure]:
    """Figures per method over every labelled video of `media`; intervals are over files.

    TransNetV2 alone looks at every frame, which takes about a core second per 50 frames. Raises
    WeightsError where its weights are missing.
    """
    config = config or SplitConfig()
    videos = labelled_videos(media)
    if not videos:
        raise EvaluationError(f"{media}: no video has labelled cuts")
    gathered = gather_all(videos, config)
    unseen = [without_transnet(evidence) for evidence in gathered]
    probabilities = [_with(config, min_probability=x) for x in _PROBABILITIES]
    strengths = [_with(config, min_strength=x) for x in _STRENGTHS]
    counts: dict[str, list[Counts]] = {
        OURS: _split(videos, gathered, config.evidence),
        OURS + LEFT_OUT: _left_out(videos, gathered, probabilities),
        OURS_WITHOUT: _split(videos, unseen, config.evidence),
        OURS_WITHOUT + LEFT_OUT: _left_out(videos, unseen, strengths),
    }
    peers = [pyscenedetect_cuts(video, config) for video in videos]
    for name in peers[0]:
        counts[name] = [match(p[name], v) for p, v in zip(peers, videos, strict=True)]
    if with_transnet_alone:
        everywhere = gather_all(videos, config.model_copy(update={"transnet": "all"}))
        counts[TRANSNET] = [
            match(transnet_cuts(evidence), video)
            for evidence, video in zip(everywhere, videos, strict=True)
        ]
    figures: list[Figure] = []
    for method, files in counts.items():
        figures += count_figures(PART, "", method, files)
    return figures


def _split(
    videos: Sequence[LabelledVideo], gathered: Sequence[Evidence | None], config: EvidenceConfig
) -> list[Counts]:
    return [
        match(split_cuts(evidence, config), video)
        for video, evidence in zip(videos, gathered, strict=True)
    ]


def _with(config: SplitConfig, **thresholds: float) -> EvidenceConfig:
    return config.evidence.model_copy(update=thresholds)


def _left_out(
    videos: Sequence[LabelledVideo],
    gathered: Sequence[Evidence | None],
    choices: Sequence[EvidenceConfig],
) -> list[Counts]:
    """Each file judged by the choice that is best on all the others."""
    by_choice = [_split(videos, gathered, choice) for choice in choices]
    totals = [sum(files, Counts()) for files in by_choice]
    judged = []
    for index in range(len(videos)):
        others = [total - files[index] for total, files in zip(totals, by_choice, strict=True)]
        best = max(range(len(choices)), key=lambda choice: others[choice].f1)
        judged.append(by_choice[best][index])
    return judged


def count_figures(part: str, prefix: str, method: str, files: Sequence[Counts]) -> list[Figure]:
    """F1, precision and recall over all boundaries of all files; intervals are over files."""
    table_F3 = np.array([(c.num_found, c.num_wrong, c.num_missed) for c in files], np.float64)
    num_cuts = round(table_F3[:, [0, 2]].sum())
    counted = f"cuts in {len(files)} files"
    figures = []
    for measure, statistic in ((_MEASURE, _f1), ("precision", _precision), ("recall", _recall)):
        low, high = bootstrap(table_F3, statistic)
        value = float(statistic(table_F3[None])[0])
        figures.append(Figure(part, prefix + measure, method, value, low, high, num_cuts, counted))
    return figures


def _f1(drawn_RF3: NDArray[Any]) -> NDArray[np.float64]:
    found, wrong, missed = drawn_RF3.sum(axis=1).T
    return np.asarray(2 * found / np.maximum(1, 2 * found + wrong + missed), np.float64)


def _precision(drawn_RF3: NDArray[Any]) -> NDArray[np.float64]:
    found, wrong, _ = drawn_RF3.sum(axis=1).T
    return np.asarray(found / np.maximum(1, found + wrong), np.float64)


def _recall(drawn_RF3: NDArray[Any]) -> NDArray[np.float64]:
    found, _, missed = drawn_RF3.sum(axis=1).T
    return np.asarray(found / np.maximum(1, found + missed), np.float64)
