"""From judgements to what tier 5 needs: who is approved, into which subsets, with which caption.

Reviewers and times stop here: nothing that follows knows them.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.pack.job import PackJob
from pipeline.pack.select import Selection
from pipeline.review.config import ReviewConfig
from pipeline.review.judgement import CaptionFix, Judgement
from pipeline.review.log import JudgementLog, counted
from pipeline.storage import Store
from pipeline.tier.join import APPROVALS, open_table
from schemas.base import canonical_json, fingerprint
from schemas.tier import ApprovalRow

APPROVALS_VERSION = 1


@dataclass(frozen=True, slots=True)
class ClipVerdict:
    """`subsets` and `fix` are those of the approvals; of two fixes of a field the later holds."""

    approved: bool
    num_approvals: int
    num_rejections: int
    subsets: tuple[str, ...]
    fix: CaptionFix


def clip_verdicts(judgements: Iterable[Judgement], config: ReviewConfig) -> dict[str, ClipVerdict]:
    """One verdict per judged clip, by clip id. `judgements` are in the order of their time."""
    by_clip: dict[str, list[Judgement]] = defaultdict(list)
    for one in counted(judgements):
        by_clip[one.clip_id].append(one)
    return {clip_id: _verdict(by_clip[clip_id], config) for clip_id in sorted(by_clip)}


def read_verdicts(store: Store, config: ReviewConfig) -> dict[str, ClipVerdict]:
    return clip_verdicts(JudgementLog(store).read(), config)


def with_approvals(
    store: Store, tables: Mapping[str, str], verdicts: Mapping[str, ClipVerdict]
) -> dict[str, str]:
    """The tables and the `approvals` table of these verdicts, which is written where it is new."""
    rows = [
        ApprovalRow(clip_id=clip_id, approved=verdict.approved)
        for clip_id, verdict in verdicts.items()
    ]
    digest = hashlib.sha256(canonical_json([row.model_dump() for row in rows]).encode())
    key = digest.hexdigest()[:16]
    table = open_table(store, APPROVALS, fingerprint(APPROVALS_VERSION, key))
    if not table.is_done(key):
        table.write_part(key, rows, seconds=0.0)
    return {**tables, APPROVALS: table.fingerprint}


def with_reviews(selection: Selection, verdicts: Mapping[str, ClipVerdict]) -> Selection:
    """The jobs with the reviewers' captions and subsets."""
    jobs = tuple(_reviewed(job, verdicts.get(job.clip.clip_id)) for job in selection.jobs)
    return Selection(jobs, selection.num_without_caption)


def _verdict(judgements: list[Judgement], config: ReviewConfig) -> ClipVerdict:
    approvals = [one for one in judgements if one.verdict == "approve"]
    num_rejections = len(judgements) - len(approvals)
    changes: dict[str, str] = {}
    for one in approvals:
        changes |= one.fix.changes
    return ClipVerdict(
        approved=len(approvals) >= config.min_approvals and len(approvals) > num_rejections,
        num_approvals=len(approvals),
        num_rejections=num_rejections,
        subsets=tuple(sorted({subset for one in approvals for subset in one.subsets})),
        fix=CaptionFix.model_validate(changes),
    )


def _reviewed(job: PackJob, verdict: ClipVerdict | None) -> PackJob:
    if verdict is None:
        return job
    caption = verdict.fix.apply(job.sample.caption)
    update = {
        "caption": caption,
        "camera_movement": caption.camera_movement,
        "subsets": verdict.subsets,
    }
    return job.model_copy(update={"sample": job.sample.model_copy(update=update)})
