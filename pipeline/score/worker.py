"""The score pass: a part of clips in, one table per stage out.

The order is fixed. Borders, text and overlays see the whole picture; from them comes the clean
crop; everything else sees the crop. Motion and camera movement do not apply to images: an image
has no row in their tables, which is neither a result nor a failure.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.engine.work import Part, PartReport
from pipeline.media.config import MediaLimits
from pipeline.score.aesthetic import AestheticStage
from pipeline.score.borders import BordersStage
from pipeline.score.camera import CameraStage
from pipeline.score.clarity import ClarityStage
from pipeline.score.config import ScoreConfig
from pipeline.score.crop import Cropper
from pipeline.score.exposure import ExposureStage
from pipeline.score.flow import FlowEstimator
from pipeline.score.motion import MotionStage
from pipeline.score.overlays import OverlaysStage
from pipeline.score.quality import QualityStage
from pipeline.score.sampler import Clip, sample_clips
from pipeline.score.sensitive import SensitiveStage
from pipeline.score.tables import WHOLE_PICTURE_STAGES, ScoreItem, read_crops, score_tables
from pipeline.score.text import TextStage
from pipeline.stage import Stage
from pipeline.storage import Store
from pipeline.tables import Table
from schemas.base import StrictModel
from schemas.clip import ClipRow
from schemas.scores import BorderScore, CropScore, OverlayScore, TextScore
from schemas.status import Failure

Result = StrictModel | Failure


class ScoreWorker:
    """Measures what the part's items lack, and writes one part per stage that was missing."""

    def __init__(self, output: str, config: ScoreConfig, limits: MediaLimits) -> None:
        self._output = output
        self._config = config
        self._limits = limits

    def setup(self) -> None:
        config = self._config
        self._tables = score_tables(Store(self._output), config)
        self._text = TextStage(config.text)
        self._borders = BordersStage(config.borders)
        self._overlays = OverlaysStage(config.overlays)
        self._cropper = Cropper(config.crop, config.overlays, self._text)
        flow = FlowEstimator(config.flow)
        self._on_crop: tuple[Stage[StrictModel], ...] = (
            MotionStage(flow),
            CameraStage(config.camera, flow),
            ClarityStage(config.clarity),
            QualityStage(config.quality, self._limits),
            AestheticStage(),
            ExposureStage(),
            SensitiveStage(config.sensitive),
        )
        for stage in (self._text, self._borders, self._overlays, *self._on_crop):
            stage.setup()

    def process(self, payload: Part) -> PartReport:
        """Score the clips and write. Items must be ScoreItems, those of one source together."""
        started = time.monotonic()
        items: Sequence[ScoreItem] = payload.items
        crops = read_crops(self._tables["crop"], payload.key)
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        clips = sample_clips([item.row for item in items], self._config.sampling, self._limits)
        reasons: Counter[str] = Counter()
        for item, clip in zip(items, clips, strict=True):
            results = self._measure(clip, item.stages, crops.get(item.row.clip_id))
            for stage in item.stages:
                rows[stage].append(score_row(item.row, results[stage]))
            first = _first_failure(results[stage] for stage in item.stages)
            if first is not None:
                reasons[first.error_class] += 1
        seconds = time.monotonic() - started
        for stage in sorted(rows):
            self._tables[stage].write_part(payload.key, rows[stage], seconds=seconds / len(rows))
        num_failed = sum(reasons.values())
        return PartReport(len(items) - num_failed, num_failed, seconds, dict(reasons))

    def _measure(
        self, clip: Clip | Failure, wanted: Sequence[str], known_crop: CropScore | None
    ) -> Mapping[str, Result]:
        """The wanted results by stage; what they need is measured, too."""
        if isinstance(clip, Failure):
            return dict.fromkeys(wanted, clip)
        results: dict[str, Result] = {}
        crop: CropScore | Failure
        if known_crop is not None and not set(wanted) & {*WHOLE_PICTURE_STAGES, "crop"}:
            crop = known_crop
        else:
            borders, text, overlays = self._whole_picture(clip)
            crop = self._crop(clip, borders, text, overlays)
            results.update(borders=borders, text=text, overlays=overlays, crop=crop)
        if isinstance(crop, Failure):
            return results | dict.fromkeys(set(wanted) - results.keys(), crop)
        inside = clip.cropped(crop.box)
        for stage in self._on_crop:
            if stage.name in wanted:
                (results[stage.name],) = stage.process([inside])
        return results

    def _whole_picture(
        self, clip: Clip
    ) -> tuple[BorderScore | Failure, TextScore | Failure, OverlayScore | Failure]:
        (borders,) = self._borders.process([clip])
        (text,) = self._text.process([clip])
        (overlays,) = self._overlays.process([clip])
        return borders, text, overlays

    def _crop(
        self,
        clip: Clip,
        borders: BorderScore | Failure,
        text: TextScore | Failure,
        overlays: OverlayScore | Failure,
    ) -> CropScore | Failure:
        if isinstance(borders, Failure):
            return borders
        if isinstance(text, Failure):
            return text
        if isinstance(overlays, Failure):
            return overlays
        return self._cropper.crop(clip, borders, text, overlays)


def record_score_failure(tables: Mapping[str, Table], part: Part, failure: Failure) -> PartReport:
    """Write the failed rows of clips that took their worker down (see engine.work.Pass)."""
    items: Sequence[ScoreItem] = part.items
    for stage in sorted({stage for item in items for stage in item.stages}):
        rows = [score_row(item.row, failure) for item in items if stage in item.stages]
        tables[stage].write_part(part.key, rows, seconds=0.0)
    return PartReport(0, len(items), 0.0, {failure.error_class: len(items)})


def find_score_report(tables: Mapping[str, Table], part: Part) -> PartReport | None:
    """What a part that is on disk holds; None when a stage lacks it.

    A part that a lost worker wrote only for some stages is removed there, so that its clips can
    come back under other keys without being counted twice.
    """
    items: Sequence[ScoreItem] = part.items
    stages = sorted({stage for item in items for stage in item.stages})
    written = [stage for stage in stages if part.key in tables[stage].done_keys()]
    if written != stages:
        for stage in written:
            tables[stage].store.remove(tables[stage].done_path(part.key))
            tables[stage].store.remove(tables[stage].part_path(part.key))
        return None
    failed: dict[str, str] = {}
    for stage in stages:
        found = tables[stage].read(["clip_id", "ok", "error_class"], keys=[part.key])
        for row in found.to_pylist():
            if not row["ok"]:
                failed.setdefault(row["clip_id"], row["error_class"])
    return PartReport(len(items) - len(failed), len(failed), 0.0, dict(Counter(failed.values())))


def score_row(row: ClipRow, result: Result) -> dict[str, Any]:
    """One row of a stage's table; the score's fields stay null where it failed."""
    if isinstance(result, Failure):
        status = {"ok": False, **result.model_dump()}
        return {"clip_id": row.clip_id, **status}
    return {"clip_id": row.clip_id, "ok": True, **result.model_dump(mode="json")}


def _first_failure(results: Iterable[Result]) -> Failure | None:
    return next((result for result in results if isinstance(result, Failure)), None)
