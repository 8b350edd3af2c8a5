"""How well near-duplicates are told from other clips, at the deployed thresholds.

Positives: each clip against an edited copy of itself, per edit, and the labelled duplicate groups.
Negatives: clips of unrelated sources, and (hard) another moment of the same source, where a static
camera makes the two nearly equal in fact. Precision per edit: the edited copy, which is another
file and needs the threshold between sources only, against the clip it was made from and the
other moment of its source, one each. Beside it the plain cosine of the mean of image features (the
network's `semantic` vector), and as a peer a 64-bit perceptual hash of the middle frame (DCT,
Zauner 2010) at the usual distance of 10 bits. Edits are applied to the sampled frames;
re-encodings go through H.264.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.config import DuplicateConfig
from pipeline.embed.config import EmbedConfig
from pipeline.evaluate.duplicate_clips import GROUPS_FILE, EvaluationClip, list_clips, read_times
from pipeline.evaluate.duplicate_looks import (
    METHODS,
    PART,
    Decisions,
    Look,
    Tally,
    look_at,
    luma_sd,
)
from pipeline.evaluate.duplicate_pictures import evaluate_pictures
from pipeline.evaluate.figures import Figure, share_figure
from pipeline.evaluate.perturbations import PERTURBATIONS, Severity
from pipeline.onnx_model import OnnxModel

Images = NDArray[np.uint8]
_CLIPS_PER_SOURCE = 2
_WHOLE = (0.0, 1.0)


@dataclass(slots=True)
class _Called:
    """For each pair that a method called duplicates: whether it is a clip and its copy."""

    right: tuple[list[bool], ...] = field(default_factory=lambda: tuple([] for _ in METHODS))

    def add(self, decisions: Decisions, *, is_own: bool) -> None:
        for right, is_called in zip(self.right, decisions, strict=True):
            right += [is_own] * is_called


def evaluate_duplicates(
    media: Path,
    config: DuplicateConfig | None = None,
    model: EmbedConfig | None = None,
    *,
    max_sources: int | None = None,
) -> list[Figure]:
    """Shares of pairs called duplicates: high is good for recalls, low for the false matches.

    Edits are tried on the first clip of each source; copies are other files, so the threshold
    between sources holds for them. Flat clips are left out, as in a run.
    """
    config, model = config or DuplicateConfig(), model or EmbedConfig()
    network = OnnxModel(model.model, kind="clip_embedding")
    num_frames = network.card.num_frames or model.num_frames
    by_edit = {name: Tally() for name in PERTURBATIONS}
    copies: list[tuple[EvaluationClip, dict[str, Look]]] = []
    looks: list[tuple[EvaluationClip, Look]] = []
    seen: Counter[str] = Counter()
    for clip in list_clips(media):
        is_first = clip.name not in seen
        if seen[clip.name] >= _CLIPS_PER_SOURCE or (is_first and len(seen) == max_sources):
            continue
        seen[clip.name] += 1
        frames = _read_spans(media, clip, num_frames, with_edits=is_first)
        if frames is None or luma_sd(frames[_WHOLE]) < config.min_luma_sd:
            continue
        look = look_at(network, frames[_WHOLE])
        looks.append((clip, look))
        if is_first:
            edited = {
                name: look_at(network, np.ascontiguousarray(edit.edit(frames[edit.span])))
                for name, edit in PERTURBATIONS.items()
            }
            copies.append((clip, edited))
            for name, copy in edited.items():
                by_edit[name].pairs.append(look.matches(copy, config))
    called = _called_beside_other_moments(copies, looks, config)
    figures = [
        *_pooled(by_edit, "mild").figures("recall of mild edits"),
        *_precision_figures(_pooled_called(called, "mild"), "mild edits"),
        *_pooled(by_edit, "strong").figures("recall of strong edits"),
        *_precision_figures(_pooled_called(called, "strong"), "strong edits"),
        *_between_sources(media, looks, config),
        *_same_source(looks, config).figures("same source, other moment: called duplicates"),
        *evaluate_pictures(media, network, config, max_pictures=max_sources),
    ]
    for name, tally in by_edit.items():
        what = f"{name} ({PERTURBATIONS[name].severity})"
        figures += tally.figures(f"recall of {what}")
        figures += _precision_figures(called[name], what)
    return figures


def _between_sources(
    media: Path, looks: list[tuple[EvaluationClip, Look]], config: DuplicateConfig
) -> list[Figure]:
    """Recall and precision over pairs of sources (their best pair of clips), and false matches."""
    groups: list[list[str]] = json.loads((media / GROUPS_FILE).read_text())
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    best: dict[tuple[str, str], Decisions] = {}
    unrelated = Tally()
    for index, (clip, look) in enumerate(looks):
        for other_clip, other in looks[:index]:
            if clip.name == other_clip.name:
                continue
            pair = look.matches(other, config)
            key = (other_clip.name, clip.name)
            before = best.get(key, (False,) * len(METHODS))
            best[key] = tuple(a or b for a, b in zip(before, pair, strict=True))
            if not _is_labelled(key, group_of):
                unrelated.pairs.append(pair)
    labelled = Tally()
    figures: list[Figure] = []
    for key, pair in best.items():
        if _is_labelled(key, group_of):
            labelled.pairs.append(pair)
    for position, method in enumerate(METHODS):
        called = [_is_labelled(key, group_of) for key, pair in best.items() if pair[position]]
        if called:
            measure = "precision over pairs of sources"
            figures.append(share_figure(PART, measure, method, called, "pairs called"))
    return [
        *labelled.figures("recall of labelled groups", "pairs of sources"),
        *figures,
        *unrelated.figures("unrelated sources: called duplicates", "pairs of clips"),
    ]


def _is_labelled(names: tuple[str, str], group_of: Mapping[str, int]) -> bool:
    group = group_of.get(names[0])
    return group is not None and group == group_of.get(names[1])


def _same_source(looks: list[tuple[EvaluationClip, Look]], config: DuplicateConfig) -> Tally:
    tally = Tally()
    for index, (clip, look) in enumerate(looks):
        for other_clip, other in looks[:index]:
            if clip.name == other_clip.name:
                tally.pairs.append(look.matches(other, config, same_source=True))
    return tally


def _called_beside_other_moments(
    copies: list[tuple[EvaluationClip, dict[str, Look]]],
    looks: list[tuple[EvaluationClip, Look]],
    config: DuplicateConfig,
) -> dict[str, _Called]:
    """Per edit the pairs called duplicates, of sources with two moments: one true, one false."""
    called = {name: _Called() for name in PERTURBATIONS}
    for clip, edited in copies:
        moments = [(other, look) for other, look in looks if other.name == clip.name]
        if len(moments) < 2:  # without a hard negative every call would be right
            continue
        for name, copy in edited.items():
            for other, look in moments:
                called[name].add(look.matches(copy, config), is_own=other == clip)
    return called


def _precision_figures(called: _Called, what: str) -> list[Figure]:
    """None for a method that called no pair."""
    measure = f"precision of {what} beside the source's other moment"
    return [
        share_figure(PART, measure, method, right, "pairs called")
        for method, right in zip(METHODS, called.right, strict=True)
        if right
    ]


def _pooled_called(by_edit: Mapping[str, _Called], severity: Severity) -> _Called:
    pooled = _Called()
    for name, called in by_edit.items():
        if PERTURBATIONS[name].severity == severity:
            for all_right, right in zip(pooled.right, called.right, strict=True):
                all_right += right
    return pooled


def _read_spans(
    media: Path, clip: EvaluationClip, num_frames: int, *, with_edits: bool
) -> dict[tuple[float, float], Images] | None:
    """Frames by span; None where the source ends early."""
    spans = {_WHOLE} | ({p.span for p in PERTURBATIONS.values()} if with_edits else set())
    times = {span: clip.sample_times(span, num_frames) for span in spans}
    shown = dict(read_times(media, clip, [t for span in spans for t in times[span]]))
    if any(time_s not in shown for span in spans for time_s in times[span]):
        return None
    return {span: np.stack([shown[time_s] for time_s in times[span]]) for span in spans}


def _pooled(by_edit: Mapping[str, Tally], severity: Severity) -> Tally:
    pooled = Tally()
    for name, tally in by_edit.items():
        if PERTURBATIONS[name].severity == severity:
            pooled.pairs += tally.pairs
    return pooled
