"""How well near-duplicates are told from other clips, at the deployed thresholds.

Positives: each clip against an edited copy of itself, per edit, and the labelled duplicate groups.
Negatives: clips of unrelated sources, and (hard) another moment of the same source, where a static
camera makes the two nearly equal in fact. Precision per edit: the edited copy, which is another
file and needs the threshold between sources only, against the clip it was made from and the
other moment of its source, one each. The peer is a 64-bit perceptual hash of the middle frame
(DCT, Zauner 2010) at the usual distance of 10 bits. Edits are applied to the sampled frames;
re-encodings go through H.264.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.config import DuplicateConfig
from pipeline.embed.config import EmbedConfig
from pipeline.embed.worker import embed
from pipeline.evaluate.duplicate_clips import EvaluationClip, list_clips, read_times
from pipeline.evaluate.figures import OURS, Figure, share_figure
from pipeline.evaluate.perturbations import PERTURBATIONS, Severity, resize
from pipeline.onnx_model import OnnxModel

PART = "duplicates"
PEER = "perceptual hash"
GROUPS_FILE = "gt/duplicate_groups.json"
Images = NDArray[np.uint8]
_CLIPS_PER_SOURCE = 2
_MAX_HASH_DISTANCE = 10  # of 64 bits
_WHOLE = (0.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """A clip as the network and as the peer see it."""

    vector_D: NDArray[np.float32]
    hash_64: NDArray[np.bool_]

    def matches(self, other: "_Look", min_similarity: float) -> tuple[bool, bool]:
        is_close = float(self.vector_D @ other.vector_D) >= min_similarity
        distance = int((self.hash_64 != other.hash_64).sum())
        return is_close, distance <= _MAX_HASH_DISTANCE


@dataclass(slots=True)
class _Tally:
    """Which pairs ours and the peer called duplicates."""

    hits: list[bool] = field(default_factory=list)
    peer_hits: list[bool] = field(default_factory=list)

    def add(self, pair: tuple[bool, bool]) -> None:
        self.hits.append(pair[0])
        self.peer_hits.append(pair[1])

    def figures(self, measure: str, counted: str = "pairs") -> list[Figure]:
        """Empty where there is nothing to count, as in a folder without labelled groups."""
        if not self.hits:
            return []
        return [
            share_figure(PART, measure, OURS, self.hits, counted),
            share_figure(PART, measure, PEER, self.peer_hits, counted),
        ]


@dataclass(slots=True)
class _Called:
    """For each pair that ours or the peer called duplicates: whether it is a clip and its copy."""

    ours: list[bool] = field(default_factory=list)
    peer: list[bool] = field(default_factory=list)


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
    by_edit = {name: _Tally() for name in PERTURBATIONS}
    copies: list[tuple[EvaluationClip, dict[str, _Look]]] = []
    looks: list[tuple[EvaluationClip, _Look]] = []
    seen: Counter[str] = Counter()
    for clip in list_clips(media):
        is_first = clip.name not in seen
        if seen[clip.name] >= _CLIPS_PER_SOURCE or (is_first and len(seen) == max_sources):
            continue
        seen[clip.name] += 1
        frames = _read_spans(media, clip, num_frames, with_edits=is_first)
        if frames is None or luma_sd(frames[_WHOLE]) < config.min_luma_sd:
            continue
        look = _look(network, frames[_WHOLE])
        looks.append((clip, look))
        if is_first:
            edited = {
                name: _look(network, np.ascontiguousarray(edit.edit(frames[edit.span])))
                for name, edit in PERTURBATIONS.items()
            }
            copies.append((clip, edited))
            for name, copy in edited.items():
                by_edit[name].add(look.matches(copy, config.min_similarity))
    called = _called_beside_other_moments(copies, looks, config)
    figures = [
        *_pooled(by_edit, "mild").figures("recall of mild edits"),
        *_precision_figures(_pooled_called(called, "mild"), "mild edits"),
        *_pooled(by_edit, "strong").figures("recall of strong edits"),
        *_precision_figures(_pooled_called(called, "strong"), "strong edits"),
        *_between_sources(media, looks, config),
        *_same_source(looks, config).figures("same source, other moment: called duplicates"),
    ]
    for name, tally in by_edit.items():
        what = f"{name} ({PERTURBATIONS[name].severity})"
        figures += tally.figures(f"recall of {what}")
        figures += _precision_figures(called[name], what)
    return figures


def perceptual_hash(image_HWC: Images) -> NDArray[np.bool_]:
    """64 bits: the lowest 8 x 8 DCT coefficients of 32 x 32 luma against their median."""
    luma = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = np.asarray(cv2.dct(small))[:8, :8].ravel()
    return np.asarray(low > np.median(low[1:]), bool)


def luma_sd(frames_THWC: Images) -> float:
    """Of the most textured frame, as the embed pass measures it."""
    return max(float(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).std()) for f in frames_THWC)


def _between_sources(
    media: Path, looks: list[tuple[EvaluationClip, _Look]], config: DuplicateConfig
) -> list[Figure]:
    """Recall and precision over pairs of sources (their best pair of clips), and false matches."""
    groups: list[list[str]] = json.loads((media / GROUPS_FILE).read_text())
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    best: dict[tuple[str, str], tuple[bool, bool]] = {}
    unrelated = _Tally()
    for index, (clip, look) in enumerate(looks):
        for other_clip, other in looks[:index]:
            if clip.name == other_clip.name:
                continue
            pair = look.matches(other, config.min_similarity)
            key = (other_clip.name, clip.name)
            before = best.get(key, (False, False))
            best[key] = before[0] or pair[0], before[1] or pair[1]
            if not _is_labelled(key, group_of):
                unrelated.add(pair)
    labelled = _Tally()
    figures: list[Figure] = []
    for key, pair in best.items():
        if _is_labelled(key, group_of):
            labelled.add(pair)
    for position, method in enumerate((OURS, PEER)):
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


def _same_source(looks: list[tuple[EvaluationClip, _Look]], config: DuplicateConfig) -> _Tally:
    tally = _Tally()
    min_similarity = max(config.min_similarity, config.min_similarity_same_source)
    for index, (clip, look) in enumerate(looks):
        for other_clip, other in looks[:index]:
            if clip.name == other_clip.name:
                tally.add(look.matches(other, min_similarity))
    return tally


def _called_beside_other_moments(
    copies: list[tuple[EvaluationClip, dict[str, _Look]]],
    looks: list[tuple[EvaluationClip, _Look]],
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
                is_own = other == clip
                is_close, is_close_peer = look.matches(copy, config.min_similarity)
                called[name].ours += [is_own] * is_close
                called[name].peer += [is_own] * is_close_peer
    return called


def _precision_figures(called: _Called, what: str) -> list[Figure]:
    """None for a method that called no pair."""
    measure = f"precision of {what} beside the source's other moment"
    by_method = ((OURS, called.ours), (PEER, called.peer))
    return [
        share_figure(PART, measure, method, right, "pairs called")
        for method, right in by_method
        if right
    ]


def _pooled_called(by_edit: Mapping[str, _Called], severity: Severity) -> _Called:
    pooled = _Called()
    for name, called in by_edit.items():
        if PERTURBATIONS[name].severity == severity:
            pooled.ours += called.ours
            pooled.peer += called.peer
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


def _look(network: OnnxModel, frames_THWC: Images) -> _Look:
    sized = resize(frames_THWC, (network.card.height, network.card.width))
    middle = frames_THWC[len(frames_THWC) // 2]
    return _Look(embed(network, sized), perceptual_hash(middle))


def _pooled(by_edit: Mapping[str, _Tally], severity: Severity) -> _Tally:
    pooled = _Tally()
    for name, tally in by_edit.items():
        if PERTURBATIONS[name].severity == severity:
            pooled.hits += tally.hits
            pooled.peer_hits += tally.peer_hits
    return pooled
