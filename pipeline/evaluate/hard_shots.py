"""Shot boundaries on renderings of the hard cases, ours beside plain peers, case by case.

Half of the renderings are made of footage on which the rule may be tuned, half of other footage.
A cut is found within two frames, a gradual transition by any boundary from two frames before its
first to two frames after its last frame; further boundaries inside count neither way.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.evaluate.figures import OURS, Figure, share_figure
from pipeline.evaluate.shot_labels import TOLERANCE_FRAMES, Counts, LabelledVideo, match
from pipeline.evaluate.shot_methods import (
    gather_all,
    pyscenedetect_cuts,
    split_cuts,
    transnet_cuts,
    without_transnet,
)
from pipeline.evaluate.shot_scenes import CASES, Half, encode, list_sources, render
from pipeline.evaluate.shots import OURS_WITHOUT, TRANSNET, count_figures
from pipeline.split.config import SplitConfig

PART = "hard-shots"
NUM_RENDERED = 4  # of each case in each half
CUT_CASES = ("cut", "jump cut", "similar shots", "quick cuts")
GRADUAL_CASES = ("dissolve", "fade", "wipe")
NO_BOUNDARY_CASES = ("flash", "sped up", "whip pan", "shake")


@dataclass(frozen=True, slots=True)
class HardVideo:
    case: str
    half: Half
    video: LabelledVideo


def evaluate_hard_shots(
    media: Path, config: SplitConfig | None = None, *, num_rendered: int = NUM_RENDERED
) -> list[Figure]:
    """Takes about a core second per 25 frames, nearly all of it TransNetV2's."""
    config = config or SplitConfig()
    with tempfile.TemporaryDirectory() as folder:
        videos = render_videos(media, Path(folder), num_rendered)
        found = found_boundaries([item.video for item in videos], config)
    figures: list[Figure] = []
    for half in ("tuned", "unseen"):
        for method, frames in found.items():
            pairs = [
                (item, match_boundaries(f, item.video))
                for item, f in zip(videos, frames, strict=True)
                if item.half == half
            ]
            figures += _figures(half, method, pairs)
    return figures


def render_videos(media: Path, folder: Path, num_rendered: int) -> list[HardVideo]:
    """Raises EvaluationError where `media` holds too little to render from."""
    videos: list[HardVideo] = []
    for half, sources in list_sources(media).items():
        for case in CASES:
            for index in range(num_rendered):
                rendering = render(case, sources, index)
                path = folder / f"{half} {case} {index}.mp4"
                encode(rendering.frames, path, index)
                video = LabelledVideo(path.name, path, rendering.cuts, rendering.gradual)
                videos.append(HardVideo(case, half, video))
    return videos


def found_boundaries(
    videos: Sequence[LabelledVideo], config: SplitConfig
) -> dict[str, list[list[int]]]:
    """By method, the boundaries in each video."""
    gathered = gather_all(videos, config)
    everywhere = gather_all(videos, config.model_copy(update={"transnet": "all"}))
    peers = [pyscenedetect_cuts(video, config) for video in videos]
    return {
        OURS: [split_cuts(e, config.evidence) for e in gathered],
        OURS_WITHOUT: [split_cuts(without_transnet(e), config.evidence) for e in gathered],
        TRANSNET: [transnet_cuts(e) for e in everywhere],
        **{name: [peer[name] for peer in peers] for name in peers[0]},
    }


def match_boundaries(frames: Sequence[int], video: LabelledVideo) -> Counts:
    """Cuts and gradual transitions alike."""
    around = tuple(
        (first - TOLERANCE_FRAMES, last + TOLERANCE_FRAMES) for first, last in video.gradual
    )
    counts = match(frames, replace(video, gradual=around))
    num_hit = sum(any(first <= f <= last for f in frames) for first, last in around)
    return counts + Counts(num_found=num_hit, num_missed=len(around) - num_hit)


def _figures(half: str, method: str, pairs: Sequence[tuple[HardVideo, Counts]]) -> list[Figure]:
    """Totals hold the false alarms of the clips without a boundary, too."""
    by_case: Mapping[str, list[Counts]] = {
        case: [counts for item, counts in pairs if item.case == case] for case in CASES
    }
    alarms = [counts for case in NO_BOUNDARY_CASES for counts in by_case[case]]
    cuts = [counts for case in CUT_CASES for counts in by_case[case]]
    gradual = [counts for case in GRADUAL_CASES for counts in by_case[case]]
    figures = [
        *count_figures(PART, f"{half}: all, ", method, [*cuts, *gradual, *alarms]),
        *count_figures(PART, f"{half}: cuts, ", method, [*cuts, *alarms]),
        *count_figures(PART, f"{half}: gradual, ", method, [*gradual, *alarms]),
    ]
    for case in (*CUT_CASES, *GRADUAL_CASES):
        figures += count_figures(PART, f"{half}: {case}, ", method, by_case[case])
    for case in NO_BOUNDARY_CASES:
        whole = [counts.num_wrong == 0 for counts in by_case[case]]
        figures.append(share_figure(PART, f"{half}: {case}, left whole", method, whole, "clips"))
    return figures
