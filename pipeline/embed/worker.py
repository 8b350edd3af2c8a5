"""The embed pass: a part of clips in, unit vectors for copies and for concepts out."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.arrow import STATUS_FIELDS
from pipeline.embed.config import EmbedConfig
from pipeline.embed.frames import ClipFrames, read_clips
from pipeline.engine.work import Part, PartReport, Pass, WorkerSpec
from pipeline.media.config import MediaLimits
from pipeline.onnx_model import NotFiniteError, OnnxModel, locate_weights, require_finite
from pipeline.part_report import find_part_report
from pipeline.parts import cut_into_parts, part_size
from pipeline.stage import Resources
from pipeline.storage import Store
from pipeline.tables import Table
from schemas.base import fingerprint
from schemas.clip import ClipRow
from schemas.status import Failure

STEP = "embedding"
VERSION = 3  # raise it when vectors change
_MAX_NORM_ERROR = 1e-3
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """Unit vectors. `copy_D` tells copies; where it is None, `semantic_D` does that, too."""

    semantic_D: Float32
    copy_D: Float32 | None

    @property
    def for_copies(self) -> Float32:
        return self.semantic_D if self.copy_D is None else self.copy_D


class EmbedWorker:
    """First and last of its chain: Part of ClipRow in, PartReport out."""

    def __init__(self, output: str, config: EmbedConfig, limits: MediaLimits) -> None:
        self._output = output
        self._config = config
        self._limits = limits

    def setup(self) -> None:
        self._table = embedding_table(Store(self._output), self._config, self._limits)
        self._model = OnnxModel(
            self._config.model, kind="clip_embedding", provider=self._config.provider
        )

    def process(self, payload: Part) -> PartReport:
        """Items must be ClipRows that are ok, those of one source together, in their order."""
        started_s = time.perf_counter()
        clips: Sequence[ClipRow] = payload.items
        card = self._model.card
        num_frames = card.num_frames or self._config.num_frames
        read = read_clips(clips, card, num_frames=num_frames, limits=self._limits)
        rows = [
            failed_row(clip, item) if isinstance(item, Failure) else self._row(clip, item)
            for clip, item in zip(clips, read, strict=True)
        ]
        return _write(self._table, payload.key, rows, time.perf_counter() - started_s)

    def _row(self, row: ClipRow, clip: ClipFrames) -> dict[str, Any]:
        try:
            embedding = embed(self._model, clip.frames_THWC)
        except NotFiniteError as error:
            return failed_row(row, Failure(error_class="not_finite", error=str(error)))
        return {
            "clip_id": clip.clip_id,
            "ok": True,
            "error_class": None,
            "error": None,
            "model_id": self._model.card.model_id,
            "luma_sd": clip.luma_sd,
            "semantic": embedding.semantic_D,
            "copy": embedding.copy_D,
        }


def embed(model: OnnxModel, frames_THWC: NDArray[np.uint8]) -> Embedding:
    """Alone through the network, so that no clip's vectors depend on another's.

    Raises ValueError when an output is not a unit vector (a bug of its export), and
    NotFiniteError where it is no vector of numbers (such as a flat picture divided by its spread).
    """
    outputs = model.run(frames_THWC[None])
    names = ("copy", "semantic") if "copy" in outputs else ("embedding",)
    vectors: dict[str, Float32] = {name: outputs[name][0] for name in names}
    require_finite(model.card.model_id, vectors)
    for name, vector_D in vectors.items():
        norm = float(np.linalg.norm(vector_D))
        if not abs(norm - 1) <= _MAX_NORM_ERROR:
            raise ValueError(f"{model.card.model_id}: {name} has norm {norm}, need unit vectors")
    if "copy" in vectors:
        return Embedding(vectors["semantic"], vectors["copy"])
    return Embedding(vectors["embedding"], None)


def embedding_table(store: Store, config: EmbedConfig, limits: MediaLimits) -> Table:
    """`semantic` is null where the clip could not be read, `copy` where one vector serves for both.

    Raises WeightsError.
    """
    sha256 = locate_weights(config.model).sha256
    fields: list[pa.Field[Any]] = [
        pa.field("clip_id", pa.string(), nullable=False),
        *STATUS_FIELDS,
        pa.field("model_id", pa.string()),
        pa.field("luma_sd", pa.float64()),
        pa.field("semantic", pa.list_(pa.float32())),
        pa.field("copy", pa.list_(pa.float32())),
    ]
    settings = {"num_frames": config.num_frames, "weights": sha256}
    return Table(store, STEP, fingerprint(STEP, VERSION, settings, limits), pa.schema(fields))


def embed_pass(
    clips: Iterable[ClipRow],
    store: Store,
    config: EmbedConfig,
    limits: MediaLimits,
    *,
    clips_per_part: int,
    item_timeout_s: float,
) -> Pass:
    """The pass over all ok clips that no finished part holds yet. Raises WeightsError."""
    table = embedding_table(store, config, limits)
    done = table.done_items("clip_id")
    left = [clip for clip in clips if clip.ok and clip.clip_id not in done]
    gpus = 1.0 if config.provider == "cuda" else 0.0
    worker = WorkerSpec(
        factory=partial(EmbedWorker, store.location, config, limits),
        resources=Resources(num_gpus=gpus),
    )
    return Pass(
        name="embed",
        parts=_parts(left, part_size(len(left), clips_per_part)),
        workers=(worker,),
        record_failure=partial(record_failure, table),
        find_report=partial(find_part_report, table),
        item_timeout_s=item_timeout_s,
    )


def record_failure(table: Table, part: Part, failure: Failure) -> PartReport:
    """Write the failed rows of clips that took their worker down."""
    return _write(table, part.key, [failed_row(clip, failure) for clip in part.items], 0.0)


def failed_row(clip: ClipRow, failure: Failure) -> dict[str, Any]:
    return {
        "clip_id": clip.clip_id,
        "ok": False,
        "error_class": failure.error_class,
        "error": failure.error,
    }


def _parts(clips: Iterable[ClipRow], clips_per_part: int) -> list[Part]:
    """Clips of one source in one part where they fit, in the order of their frames."""
    parts = cut_into_parts(
        clips,
        item_id=lambda clip: clip.clip_id,
        max_items=clips_per_part,
        group=lambda clip: clip.source_uri,
        max_group_items=clips_per_part,
    )
    return [
        Part(part.key, tuple(sorted(part.items, key=lambda c: (c.source_uri, c.start_frame))))
        for part in parts
    ]


def _write(table: Table, key: str, rows: Sequence[dict[str, Any]], seconds: float) -> PartReport:
    table.write_part(key, rows, seconds=seconds)
    reasons = Counter(row["error_class"] for row in rows if not row["ok"])
    num_failed = sum(reasons.values())
    return PartReport(len(rows) - num_failed, num_failed, seconds, dict(reasons))
