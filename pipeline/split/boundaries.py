"""From what the witnesses saw to the boundaries between shots.

Hard candidates are peaks of change at which PySceneDetect cuts; soft ones are TransNetV2's. A soft
one beside a hard one is the same boundary, told to the frame by the hard one. Where one picture is
mixed with another, there is a boundary of kind `dissolve` even if TransNetV2 sees none. Blank
frames (black or white) with the fade on either side are one boundary of kind `fade`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.split.config import EvidenceConfig
from pipeline.split.evidence import Evidence
from pipeline.split.fades import Fade, find_fades
from pipeline.split.mixing import merged
from pipeline.split.transnet import runs_above
from pipeline.split.witnesses import change_ratio, hard_strength, is_peak
from schemas.clip import ShotKind

_SAME_BOUNDARY_BEFORE = 3  # frames by which the two witnesses may differ about one boundary
_SAME_BOUNDARY_AFTER = 2
_MIN_SOFT_CUT = 0.1  # below, TransNetV2 proposes nothing
_MIN_GRADUAL_FRAMES = 2


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where one shot gives way to the next.

    For a cut `frame` begins the new shot, and `first_frame` and `last_frame` equal it. Frames
    `first_frame` to `last_frame` of a gradual transition belong to neither shot, and `frame` is the
    one at which the picture changes: the middle of a dissolve; the first blank frame of a fade, or
    where a fade out ends abruptly in the next picture, the first frame of that.

    A fade that leads into the first shot has frame 0, one that ends the source has the number of
    frames: they are trimmed, but separate nothing.
    """

    frame: int
    kind: ShotKind
    first_frame: int
    last_frame: int
    adaptive_score: float | None = None
    content_score: float | None = None
    transnet_score: float | None = None
    rejected: str | None = None  # why it was not accepted

    @property
    def next_start(self) -> int:
        """The first frame of the new shot."""
        return self.frame if self.kind == "cut" else self.last_frame + 1


def find_boundaries(evidence: Evidence, config: EvidenceConfig) -> list[Boundary]:
    """Accepted and rejected candidates by frame. Accepted ones do not overlap."""
    hard = _hard_candidates(evidence, config)
    cuts = {boundary.frame for boundary in hard if boundary.rejected is None}
    fades = [_fade(fade, cuts, evidence.num_frames) for fade in find_fades(evidence, config)]
    hard = [boundary for boundary in hard if not _touches(boundary, fades)]
    accepted = [*fades, *(b for b in hard if b.rejected is None)]
    soft = [b for b in _soft_candidates(evidence, config) if not _touches(b, accepted)]
    for boundary in sorted(soft, key=lambda b: -(b.transnet_score or 0.0)):
        if boundary.rejected is None and not _touches(boundary, accepted):
            accepted.append(boundary)
    accepted += [b for b in _mixed_candidates(evidence) if not _touches(b, accepted)]
    rejected = [b for b in [*hard, *soft] if b.rejected is not None]
    return sorted([*accepted, *rejected], key=lambda b: (b.frame, b.rejected or ""))


def _fade(fade: Fade, cuts: set[int], num_frames: int) -> Boundary:
    """Its `frame` is where it is abrupt, if it is, so that a cut beside it tells nothing new."""
    after = fade.last + 1
    is_entered_gradually = fade.first < fade.first_blank or fade.first == 0
    if is_entered_gradually and after in cuts:
        frame = after
    elif fade.first == 0:
        frame = 0
    elif after == num_frames and is_entered_gradually:
        frame = num_frames
    else:
        frame = fade.first_blank
    return Boundary(frame=frame, kind="fade", first_frame=fade.first, last_frame=fade.last)


def _touches(boundary: Boundary, others: list[Boundary]) -> bool:
    """Whether it is another view of one of `others`."""
    if boundary.kind == "cut":
        return any(
            other.first_frame <= boundary.frame <= max(other.last_frame, other.frame)
            for other in others
        )
    first = boundary.first_frame - _SAME_BOUNDARY_AFTER
    last = boundary.last_frame + _SAME_BOUNDARY_BEFORE
    return any(first <= other.last_frame and other.first_frame <= last for other in others)


def _hard_candidates(evidence: Evidence, config: EvidenceConfig) -> list[Boundary]:
    content = evidence.content
    found: list[Boundary] = []
    for frame in evidence.proposals:
        if not is_peak(content, frame):
            continue
        ratio = change_ratio(content, frame)
        likeness = float(evidence.likeness[frame])
        strength = hard_strength(content[frame], likeness, config)
        is_lone = ratio >= config.lone_ratio and likeness <= config.max_lone_likeness
        probability = _probability_near(evidence, frame)
        found.append(
            Boundary(
                frame=frame,
                kind="cut",
                first_frame=frame,
                last_frame=frame,
                adaptive_score=ratio,
                content_score=float(content[frame]),
                transnet_score=probability,
                rejected=None if is_lone else _why_not_hard(ratio, strength, probability, config),
            )
        )
    return found


def _why_not_hard(
    ratio: float, strength: float, probability: float | None, config: EvidenceConfig
) -> str | None:
    is_abrupt = ratio >= config.min_ratio
    if probability is None:
        if not is_abrupt:
            return "not_abrupt"
        return None if strength >= config.min_strength else "picture_found_again"
    total = probability + (strength if is_abrupt else 0.0)
    needed = config.min_strength + config.min_probability
    return None if total >= needed else "witnesses_disagree"


def _probability_near(evidence: Evidence, frame: int) -> float | None:
    """TransNetV2's highest probability around a hard candidate; None where it did not look."""
    return _highest(
        evidence.cut[max(0, frame - _SAME_BOUNDARY_BEFORE) : frame + _SAME_BOUNDARY_AFTER]
    )


def _soft_candidates(evidence: Evidence, config: EvidenceConfig) -> list[Boundary]:
    found: list[Boundary] = []
    for start, end, probability in runs_above(evidence.cut, _MIN_SOFT_CUT):
        peak = start + int(np.argmax(evidence.cut[start:end]))
        if peak + 1 >= evidence.num_frames:
            continue
        first, last = _extent(evidence, peak, config)
        is_cut = last - first < _MIN_GRADUAL_FRAMES
        if is_cut:
            near = evidence.content[peak : peak + _SAME_BOUNDARY_BEFORE]
            first = last = max(1, peak + int(np.argmax(near)))
        found.append(
            Boundary(
                frame=first if is_cut else peak,
                kind="cut" if is_cut else "dissolve",
                first_frame=first,
                last_frame=last,
                transnet_score=probability,
                rejected=_why_not_soft(evidence, peak, probability, config, is_cut=is_cut),
            )
        )
    return found


def _why_not_soft(
    evidence: Evidence, peak: int, probability: float, config: EvidenceConfig, *, is_cut: bool
) -> str | None:
    if probability < config.min_probability:
        return "not_sure"
    near = np.nan_to_num(evidence.likeness[max(0, peak - 1) : peak + _SAME_BOUNDARY_BEFORE])
    is_flash = is_cut and float(near.max()) >= config.flash_likeness
    if is_flash and probability < config.min_probability_in_flash:
        return "picture_found_again"
    return None


def _mixed_candidates(evidence: Evidence) -> list[Boundary]:
    return [
        Boundary(
            frame=(first + last) // 2,
            kind="dissolve",
            first_frame=first,
            last_frame=last,
            transnet_score=_highest(evidence.cut[first : last + 1]),
        )
        for first, last in merged(evidence.mixed)
    ]


def _highest(cut: NDArray[np.float32]) -> float | None:
    seen = cut[~np.isnan(cut)]
    return float(seen.max()) if len(seen) else None


def _extent(evidence: Evidence, peak: int, config: EvidenceConfig) -> tuple[int, int]:
    """First and last frame around `peak` that TransNetV2 counts to the transition."""
    inside = np.nan_to_num(evidence.transition) >= config.min_transition
    first = last = peak
    while first > 0 and inside[first - 1]:
        first -= 1
    while last < evidence.num_frames - 2 and inside[last + 1]:
        last += 1
    return first, last
