"""From boundaries to clip rows: trim, cut long shots into parts, find the clear first frame."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.split.boundaries import Boundary
from pipeline.split.config import ClearStartConfig, SplitConfig
from pipeline.split.evidence import Evidence
from schemas.clip import ClipRow, clip_id
from schemas.source import SourceRow

# One frame's duration may differ from the median by this share before the rate counts as variable;
# containers that store milliseconds round by up to 3 % at 30 frames per second.
_RATE_TOLERANCE = 0.2
_MAX_FADED_LUMA = 16.0  # mean 8-bit level; a start this dark is not clear


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What every clip of a source has in common."""

    row: SourceRow
    height: int  # as displayed
    width: int


def clip_rows(
    evidence: Evidence, boundaries: list[Boundary], facts: SourceFacts, config: SplitConfig
) -> list[ClipRow]:
    """One row per clip and per dropped shot, in order of time."""
    accepted = [boundary for boundary in boundaries if boundary.rejected is None]
    rows: list[ClipRow] = []
    for start, end in shot_spans(accepted, evidence.num_frames):
        duration_s = _end_s(evidence, end) - float(evidence.time_s[start])
        if duration_s < config.min_clip_s:
            reason = f"the shot lasts {duration_s:.2f} s, at least {config.min_clip_s:g} s wanted"
            rows.append(_row(evidence, start, end, facts, start, too_short=reason))
            continue
        for first, last in equal_parts(evidence, start, end, config.max_clip_s):
            clear = clear_start(evidence, first, last, config)
            rows.append(_row(evidence, first, last, facts, clear))
    return rows


def shot_spans(accepted: list[Boundary], num_frames: int) -> list[tuple[int, int]]:
    """Frames [start, end) of every shot, without those of gradual transitions."""
    starts = [0, *(boundary.next_start for boundary in accepted)]
    ends = [*(boundary.first_frame for boundary in accepted), num_frames]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]


def equal_parts(
    evidence: Evidence, start: int, end: int, max_part_s: float
) -> list[tuple[int, int]]:
    """[start, end) cut into the fewest parts of equal duration that are at most `max_part_s`.

    Durations are equal to within a frame, by time and not by count, so a variable rate is fine.
    """
    start_s = float(evidence.time_s[start])
    duration_s = _end_s(evidence, end) - start_s
    num_parts = max(1, math.ceil(duration_s / max_part_s - 1e-9))
    cuts = [start]
    for part in range(1, num_parts):
        wanted_s = start_s + duration_s * part / num_parts
        cuts.append(int(np.searchsorted(evidence.time_s, wanted_s - 1e-6)))
    cuts.append(end)
    return [(first, last) for first, last in pairwise(cuts) if first < last]


def clear_start(evidence: Evidence, start: int, end: int, config: SplitConfig) -> int:
    """The first frame of the opening that is nearly as sharp as the opening's sharpest.

    Frames of a fade (dark or without contrast) are passed over; when all are, it is `start`.
    """
    opening = _opening(evidence, start, end, config.clear_start)
    frames = slice(start, opening)
    is_lit = (evidence.luma_mean[frames] >= _MAX_FADED_LUMA) & (
        evidence.luma_sd[frames] >= config.evidence.min_contrast
    )
    sharpness = np.where(is_lit, evidence.sharpness[frames], -1.0)
    best = float(sharpness.max())
    if best < 0:
        return start
    clear_enough = is_lit & (sharpness >= config.clear_start.min_share_of_best * best)
    return start + int(np.argmax(clear_enough))


def _opening(evidence: Evidence, start: int, end: int, config: ClearStartConfig) -> int:
    """End of the frames among which the clear start is chosen; at least one of them."""
    start_s = float(evidence.time_s[start])
    duration_s = _end_s(evidence, end) - start_s
    opening_s = min(config.max_opening_s, config.max_opening_share * duration_s)
    last = int(np.searchsorted(evidence.time_s, start_s + opening_s + 1e-6)) - 1
    return min(max(last, start) + 1, end)


def _end_s(evidence: Evidence, end: int) -> float:
    """Time at which frame `end - 1` is over; the last one lasts as long as the median frame."""
    times = evidence.time_s
    if end < len(times):
        return float(times[end])
    return float(times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 0.0))


def _row(
    evidence: Evidence,
    start: int,
    end: int,
    facts: SourceFacts,
    clear: int,
    *,
    too_short: str | None = None,
) -> ClipRow:
    durations = np.diff(evidence.time_s[start:end])
    total_s = float(durations.sum())
    is_vfr = False
    if len(durations) > 1:
        median = float(np.median(durations))
        is_vfr = bool((np.abs(durations - median) > _RATE_TOLERANCE * median).any())
    sha256 = facts.row.sha256 or ""
    return ClipRow(
        ok=too_short is None,
        error_class=None if too_short is None else "too_short",
        error=too_short,
        clip_id=clip_id(sha256, start, end),
        source_uri=facts.row.source_uri,
        source_sha256=sha256,
        media_kind="video",
        start_frame=start,
        end_frame=end,
        start_s=float(evidence.time_s[start]),
        end_s=_end_s(evidence, end),
        clear_frame=clear,
        clear_s=float(evidence.time_s[clear]),
        fps=len(durations) / total_s if total_s > 0 else None,
        is_vfr=is_vfr,
        width=facts.width,
        height=facts.height,
    )
