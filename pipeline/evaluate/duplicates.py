"""How well near-duplicates are told from other clips, at the deployed threshold.

Positives: each clip against an edited copy of itself, per edit, and the labelled duplicate groups.
Negatives: clips of unrelated sources, and (hard) another moment of the same source, where a static
camera makes the two nearly equal in fact. The peer is a 64-bit perceptual hash of the middle frame
(DCT, Zauner 2010) at the usual distance of 10 bits. Edits are applied to the sampled frames;
re-encodings go through H.264.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.embed.worker import embed
from pipeline.evaluate.duplicate_clips import EvaluationClip, list_clips, read_times
from pipeline.evaluate.interval import bootstrap_mean
from pipeline.evaluate.perturbations import PERTURBATIONS, Severity, resize
from pipeline.onnx_model import OnnxModel

Images = NDArray[np.uint8]
_CLIPS_PER_SOURCE = 2
_MAX_HASH_DISTANCE = 10  # of 64 bits
_WHOLE = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Share:
    """A share of `count` pairs with its 95 % interval (bootstrap over pairs)."""

    share: float
    count: int
    interval: tuple[float, float]
    peer_share: float

    @classmethod
    def of(cls, hits: list[bool], peer_hits: list[bool]) -> "Share | None":
        if not hits:
            return None
        return cls(float(np.mean(hits)), len(hits), bootstrap_mean(hits), float(np.mean(peer_hits)))


@dataclass(frozen=True, slots=True)
class DuplicateFigures:
    """Shares of pairs called duplicates: high is good for recalls, low for the last two."""

    model_id: str
    min_similarity: float
    num_clips: int
    recall_by_edit: dict[str, Share]
    recall_mild: Share | None
    recall_strong: Share | None
    recall_labelled: Share | None
    false_unrelated: Share | None
    same_source: Share | None


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """A clip as the network and as the peer see it."""

    vector_D: NDArray[np.float32]
    hash_64: NDArray[np.bool_]

    def matches(self, other: "_Look", min_similarity: float) -> tuple[bool, bool]:
        is_close = float(self.vector_D @ other.vector_D) >= min_similarity
        distance = int((self.hash_64 != other.hash_64).sum())
        return is_close, distance <= _MAX_HASH_DISTANCE


class _Tally:
    """Hits of ours and of the peer."""

    def __init__(self) -> None:
        self.hits: list[bool] = []
        self.peer_hits: list[bool] = []

    def add(self, pair: tuple[bool, bool]) -> None:
        self.hits.append(pair[0])
        self.peer_hits.append(pair[1])

    def share(self) -> Share | None:
        return Share.of(self.hits, self.peer_hits)


def evaluate_duplicates(
    media: Path,
    *,
    model: str,
    min_similarity: float,
    min_luma_sd: float,
    num_frames: int = 8,
    max_sources: int | None = None,
) -> DuplicateFigures:
    """Edits are tried on the first clip of each source. Flat clips are left out, as in a run."""
    network = OnnxModel(model, kind="clip_embedding")
    by_edit = {name: _Tally() for name in PERTURBATIONS}
    looks: list[tuple[EvaluationClip, _Look]] = []
    seen: Counter[str] = Counter()
    for clip in list_clips(media):
        is_first = clip.name not in seen
        if seen[clip.name] >= _CLIPS_PER_SOURCE or (is_first and len(seen) == max_sources):
            continue
        seen[clip.name] += 1
        frames = _read_spans(media, clip, num_frames, with_edits=is_first)
        if frames is None or luma_sd(frames[_WHOLE]) < min_luma_sd:
            continue
        look = _look(network, frames[_WHOLE])
        looks.append((clip, look))
        if is_first:
            for name, perturbation in PERTURBATIONS.items():
                edited = np.ascontiguousarray(perturbation.edit(frames[perturbation.span]))
                by_edit[name].add(look.matches(_look(network, edited), min_similarity))
    labelled, unrelated, same = _between(media, looks, min_similarity)
    return DuplicateFigures(
        model_id=network.card.model_id,
        min_similarity=min_similarity,
        num_clips=len(looks),
        recall_by_edit={n: share for n, t in by_edit.items() if (share := t.share())},
        recall_mild=_pooled(by_edit, "mild"),
        recall_strong=_pooled(by_edit, "strong"),
        recall_labelled=labelled.share(),
        false_unrelated=unrelated.share(),
        same_source=same.share(),
    )


def perceptual_hash(image_HWC: Images) -> NDArray[np.bool_]:
    """64 bits: the lowest 8 x 8 DCT coefficients of 32 x 32 luma against their median."""
    luma = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = np.asarray(cv2.dct(small))[:8, :8].ravel()
    return np.asarray(low > np.median(low[1:]), bool)


def luma_sd(frames_THWC: Images) -> float:
    """Of the most textured frame, as the embed pass measures it."""
    return max(float(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).std()) for f in frames_THWC)


def _between(
    media: Path, looks: list[tuple[EvaluationClip, _Look]], min_similarity: float
) -> tuple[_Tally, _Tally, _Tally]:
    """Labelled duplicates (their best pair of clips), unrelated sources, moments of one source."""
    groups: list[list[str]] = json.loads((media / "gt" / "duplicate_groups.json").read_text())
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    labelled_best: dict[tuple[str, str], tuple[bool, bool]] = {}
    unrelated, same = _Tally(), _Tally()
    for index, (clip, look) in enumerate(looks):
        for other_clip, other in looks[:index]:
            pair = look.matches(other, min_similarity)
            group = group_of.get(clip.name)
            if clip.name == other_clip.name:
                same.add(pair)
            elif group is not None and group == group_of.get(other_clip.name):
                key = (other_clip.name, clip.name)
                best = labelled_best.get(key, (False, False))
                labelled_best[key] = best[0] or pair[0], best[1] or pair[1]
            else:
                unrelated.add(pair)
    labelled = _Tally()
    for pair in labelled_best.values():
        labelled.add(pair)
    return labelled, unrelated, same


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


def _pooled(by_edit: dict[str, _Tally], severity: Severity) -> Share | None:
    pooled = _Tally()
    for name, tally in by_edit.items():
        if PERTURBATIONS[name].severity == severity:
            pooled.hits += tally.hits
            pooled.peer_hits += tally.peer_hits
    return pooled.share()
