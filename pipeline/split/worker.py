"""The split worker: sources in, tables of clips and shots out. One decode per video."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import cv2

from pipeline.engine.work import Part, PartReport
from pipeline.media.errors import MediaError, to_failure
from pipeline.media.video import display_size, open_video
from pipeline.onnx_model import OnnxModel
from pipeline.split.boundaries import Boundary, find_boundaries
from pipeline.split.clips import SourceFacts, clip_rows
from pipeline.split.config import SplitConfig
from pipeline.split.evidence import gather_evidence
from pipeline.split.tables import SplitTables, report_of, split_fingerprint
from pipeline.storage import Store
from schemas.clip import ClipRow, ShotCandidateRow, ShotRow, clip_id
from schemas.source import SourceRow
from schemas.status import Failure

_log = logging.getLogger(__name__)


class SourceSplit:
    """The rows of one source."""

    def __init__(self) -> None:
        self.clips: list[ClipRow] = []
        self.shots: list[ShotRow] = []
        self.candidates: list[ShotCandidateRow] = []


class SplitWorker:
    """Lives in one actor. `output` is the run's output folder."""

    def __init__(self, output: str, config: SplitConfig) -> None:
        self._output = output
        self._config = config

    def setup(self) -> None:
        cv2.setNumThreads(1)
        self._tables = SplitTables.at(Store(self._output), split_fingerprint(self._config))
        self._transnet = load_transnet(self._config)

    def process(self, payload: Part) -> PartReport:
        start_s = time.perf_counter()
        splits = [
            split_source(source_row(item), self._config, self._transnet) for item in payload.items
        ]
        clips = [row for split in splits for row in split.clips]
        seconds = time.perf_counter() - start_s
        self._tables.write(
            payload.key,
            clips,
            [row for split in splits for row in split.shots],
            [row for split in splits for row in split.candidates],
            seconds=seconds,
        )
        rows = [(row.source_uri, row.clip_id, row.error_class) for row in clips]
        return report_of(rows, seconds=seconds)


def load_transnet(config: SplitConfig) -> OnnxModel | None:
    """The second witness, None when it is switched off. Raises WeightsError."""
    if config.transnet == "off":
        return None
    return OnnxModel(
        config.transnet_weights, kind="shot_boundary", provider=config.transnet_provider
    )


def record_failure(tables: SplitTables, part: Part, failure: Failure) -> PartReport:
    """Write the failed rows of a part whose worker was lost or ran out of time."""
    clips = [failed_row(source_row(item), failure) for item in part.items]
    tables.write(part.key, clips, [], [], seconds=0.0)
    return report_of([(c.source_uri, c.clip_id, c.error_class) for c in clips], seconds=0.0)


def source_row(item: SourceRow | Mapping[str, Any]) -> SourceRow:
    return item if isinstance(item, SourceRow) else SourceRow.model_validate(dict(item))


def split_source(row: SourceRow, config: SplitConfig, transnet: OnnxModel | None) -> SourceSplit:
    """All rows of one source; failures of the medium are rows too."""
    split = SourceSplit()
    if row.probe is not None and row.probe.media_kind == "image":
        split.clips.append(_image_row(row))
        return split
    try:
        _split_video(split, row, config, transnet)
    except MediaError as error:
        split.clips.append(failed_row(row, to_failure(error)))
    return split


def failed_row(row: SourceRow, failure: Failure, *, good_frames: int = 0) -> ClipRow:
    """A source that failed, or the part of it after its `good_frames`."""
    is_image = row.probe is not None and row.probe.media_kind == "image"
    return ClipRow(
        ok=False,
        error_class=failure.error_class,
        error=failure.error,
        clip_id="",
        source_uri=row.source_uri,
        source_sha256=row.sha256 or "",
        media_kind="image" if is_image else "video",
        start_frame=good_frames,
        end_frame=good_frames,
    )


def _split_video(
    split: SourceSplit, row: SourceRow, config: SplitConfig, transnet: OnnxModel | None
) -> None:
    with open_video(
        row.source_uri, config.limits, skip_loop_filter=config.skip_loop_filter
    ) as reader:
        height, width = reader.display_size
        evidence = gather_evidence(reader, config, transnet)
    if evidence.num_frames == 0:
        raise evidence.error or MediaError("no_frames", f"{row.source_uri}: no frame decoded")
    boundaries = find_boundaries(evidence, config.evidence)
    facts = SourceFacts(row=row, height=height, width=width)
    split.clips.extend(clip_rows(evidence, boundaries, facts, config))
    for boundary in boundaries:
        if boundary.rejected is not None:
            shot = _shot_row(row, boundary).model_dump()
            split.candidates.append(ShotCandidateRow(**shot, reason=boundary.rejected))
        elif 0 < boundary.frame < evidence.num_frames:
            split.shots.append(_shot_row(row, boundary))
    if evidence.error is not None:
        failure = to_failure(evidence.error)
        split.clips.append(failed_row(row, failure, good_frames=evidence.num_frames))
    elif not split.clips:
        text = f"{row.source_uri}: all {evidence.num_frames} frames are blank"
        split.clips.append(failed_row(row, Failure(error_class="blank", error=text)))
    _log.debug("%s: %d looks of the second witness", row.source_uri, evidence.num_looks)


def _shot_row(row: SourceRow, boundary: Boundary) -> ShotRow:
    return ShotRow(
        source_uri=row.source_uri,
        source_sha256=row.sha256 or "",
        frame=boundary.frame,
        kind=boundary.kind,
        first_frame=boundary.first_frame,
        last_frame=boundary.last_frame,
        adaptive_score=boundary.adaptive_score,
        content_score=boundary.content_score,
        transnet_score=boundary.transnet_score,
    )


def _image_row(row: SourceRow) -> ClipRow:
    assert row.probe is not None
    height, width = display_size(row.probe)
    sha256 = row.sha256 or ""
    return ClipRow(
        clip_id=clip_id(sha256, 0, 1),
        source_uri=row.source_uri,
        source_sha256=sha256,
        media_kind="image",
        end_frame=1,
        width=width,
        height=height,
    )
