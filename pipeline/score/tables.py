"""The score tables, their fingerprints, and the plan of what is still to be measured."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.arrow import score_schema
from pipeline.engine.work import Part
from pipeline.onnx_model import locate_weights
from pipeline.parts import part_size
from pipeline.score.aesthetic import AestheticStage
from pipeline.score.borders import BordersStage
from pipeline.score.camera import CameraStage
from pipeline.score.clarity import ClarityStage
from pipeline.score.config import GEOMETRY, ScoreConfig
from pipeline.score.crop import Cropper
from pipeline.score.exposure import ExposureStage
from pipeline.score.motion import MotionStage
from pipeline.score.overlays import OverlaysStage
from pipeline.score.quality import NIQE_WEIGHTS, QualityStage
from pipeline.score.sampler import SAMPLER_VERSION
from pipeline.score.sensitive import SensitiveStage, sensitive_weights_sha256
from pipeline.score.text import TextStage
from pipeline.score.text_reader import text_weights_sha256
from pipeline.storage import Store
from pipeline.tables import Table, part_key
from schemas.base import fingerprint
from schemas.clip import ClipRow
from schemas.scores import CropScore
from schemas.source import MediaKind

WHOLE_PICTURE_STAGES = ("borders", "text", "overlays")
_MOVING_PICTURE_STAGES = ("motion", "camera")
_STAGES = (
    BordersStage,
    TextStage,
    OverlaysStage,
    Cropper,
    MotionStage,
    CameraStage,
    ClarityStage,
    QualityStage,
    AestheticStage,
    ExposureStage,
    SensitiveStage,
)
SCORE_STAGES: tuple[str, ...] = tuple(stage.name for stage in _STAGES)


@dataclass(frozen=True, slots=True)
class ScoreItem:
    """One clip of a part and the stages that it lacks."""

    row: ClipRow
    stages: tuple[str, ...]


def stages_for(media_kind: MediaKind) -> tuple[str, ...]:
    """The stages that apply, in their fixed order."""
    if media_kind == "video":
        return SCORE_STAGES
    return tuple(name for name in SCORE_STAGES if name not in _MOVING_PICTURE_STAGES)


def score_tables(store: Store, config: ScoreConfig) -> dict[str, Table]:
    """One table per stage, at the fingerprint of all that its numbers depend on."""
    fingerprints = score_fingerprints(config)
    return {
        stage.name: Table(store, stage.name, fingerprints[stage.name], score_schema(stage.result))
        for stage in _STAGES
    }


def score_fingerprints(config: ScoreConfig) -> dict[str, str]:
    """Raises WeightsError when configured weights are not there."""
    versions = {stage.name: stage.version for stage in _STAGES}
    depends_on: Mapping[str, tuple[Any, ...]] = {
        "borders": (config.borders,),
        "text": (config.text, *text_weights_sha256(config.text.backend)),
        "overlays": (config.overlays, _weights(config.overlays.model)),
        "motion": (config.flow, _weights(config.flow.model)),
        "camera": (
            config.camera,
            config.flow,
            _weights(config.flow.model),
            _weights(None if config.camera.model == GEOMETRY else config.camera.model),
        ),
        "clarity": (config.clarity,),
        "quality": (config.quality, _weights(config.quality.model), _weights(NIQE_WEIGHTS)),
        "aesthetic": (),
        "exposure": (),
        "sensitive": (config.sensitive, sensitive_weights_sha256()),
    }
    sampling = (SAMPLER_VERSION, config.sampling)
    found = {
        name: fingerprint(name, versions[name], *sampling, *depends_on[name])
        for name in WHOLE_PICTURE_STAGES
    }
    seen = [found[name] for name in WHOLE_PICTURE_STAGES]
    found["crop"] = fingerprint("crop", versions["crop"], *sampling, config.crop, *seen)
    for name, parts in depends_on.items():
        if name not in found:
            found[name] = fingerprint(name, versions[name], *sampling, found["crop"], *parts)
    return found


def plan_score_parts(
    rows: Iterable[ClipRow], tables: Mapping[str, Table], *, clips_per_part: int
) -> list[Part]:
    """Parts of what is missing. Clips that lack the same stages go together, by source in order.

    The parts depend on the clips and on what is done, not on the order of `rows`.
    """
    done = {name: table.done_items("clip_id") for name, table in tables.items()}
    groups: dict[tuple[str, ...], list[ClipRow]] = {}
    for row in rows:
        missing = tuple(s for s in stages_for(row.media_kind) if row.clip_id not in done[s])
        if missing:
            groups.setdefault(missing, []).append(row)
    parts = []
    for missing in sorted(groups):
        ordered = sorted(groups[missing], key=lambda r: (r.source_sha256, r.start_frame, r.clip_id))
        for chunk in _chunks(ordered, part_size(len(ordered), clips_per_part)):
            items = tuple(ScoreItem(row, missing) for row in chunk)
            parts.append(Part(part_key(row.clip_id for row in chunk), items))
    return parts


def read_crops(table: Table, key: str) -> dict[str, CropScore]:
    """Crops that a finished part of the same clips holds, by clip."""
    if not table.store.exists(table.done_path(key)):
        return {}
    found = table.read(keys=[key]).to_pylist()
    fields = CropScore.model_fields
    return {
        row["clip_id"]: CropScore.model_validate({name: row[name] for name in fields})
        for row in found
        if row["ok"]
    }


def _chunks(rows: Sequence[ClipRow], size: int) -> Iterator[Sequence[ClipRow]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


@functools.cache
def _weights(name: str | None) -> str | None:
    return None if name is None else locate_weights(name).sha256
