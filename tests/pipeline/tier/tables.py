"""Score tables made by hand: clips with known numbers, written as the steps write them."""

import hashlib
from collections.abc import Sequence
from typing import Any

from pipeline.storage import Store
from pipeline.tier.join import open_table
from pipeline.tier.scores import stage_models
from schemas.base import canonical_json
from schemas.clip import clip_id
from schemas.scores import ClipScores

GOOD_SCORES: dict[str, dict[str, Any]] = {
    "motion": {
        "speed": 5.0,
        "speed_p90": 9.0,
        "camera_speed": 3.0,
        "object_speed": 2.0,
        "moving_area": 0.4,
        "num_pairs": 30,
    },
    "camera": {
        "model_id": "geometry-1",
        "movement": "pan_left",
        "confidence": 0.9,
        "truck": 0.0,
        "pedestal": 0.0,
        "yaw": -3.0,
        "pitch": 0.0,
        "roll": 0.0,
        "zoom": 0.0,
        "jitter": 0.1,
        "coherence": 0.95,
    },
    "clarity": {"sharpness": 1.2, "laplacian_variance": 300.0, "effective_height": 700.0},
    "quality": {"model_id": "niqe-1", "niqe": 4.0},
    "aesthetic": {"model_id": "proxy-1", "aesthetic_proxy": 0.6},
    "exposure": {
        "mean_luma": 110.0,
        "luma_sd": 50.0,
        "dark_share": 0.01,
        "bright_share": 0.01,
        "saturation": 0.4,
        "flicker": 0.5,
    },
    "borders": {"left_px": 0, "right_px": 0, "top_px": 0, "bottom_px": 0},
    "text": {
        "model_id": "ocr-1",
        "mean_area": 0.0,
        "max_area": 0.0,
        "persistent_area": 0.0,
        "subtitle_band": None,
        "tracks": (),
        "num_frames": 8,
    },
    "overlays": {
        "model_id": "gradient-1",
        "overlays": (),
        "area": 0.0,
        "comparable": True,
        "num_frames": 8,
    },
    "sensitive": {"model_id": "nsfw-1", "max_probability": 0.01, "mean_probability": 0.01},
    "crop": {
        "box": {"left": 0.0, "top": 0.0, "right": 1.0, "bottom": 1.0},
        "kept_area": 1.0,
        "text_mean_area": 0.0,
        "text_max_area": 0.0,
        "overlay_area": 0.0,
    },
}


class ClipMaker:
    """Collects clips; `write` lays them down as tables and returns step -> fingerprint."""

    def __init__(self) -> None:
        self.clips: list[dict[str, Any]] = []
        self.sources: dict[str, dict[str, Any]] = {}
        self.corpus: list[dict[str, Any]] = []
        self.approvals: list[dict[str, Any]] = []
        self.scores: dict[str, list[dict[str, Any]]] = {name: [] for name in stage_models()}

    def add(
        self,
        *,
        source: str = "film",
        uri: str | None = None,
        sha256: str | None = None,
        start: int = 0,
        num_frames: int = 200,
        fps: float | None = 24.0,
        size_WH: tuple[int, int] = (1920, 1080),
        image: bool = False,
        approved: bool | None = None,
        duplicate_of: str | None = None,
        tags: tuple[str, ...] = (),
        clear: int | None = None,
        cluster: int = 0,
        weight: float = 1.0,
        without: Sequence[str] = (),
        **scores: dict[str, Any],
    ) -> str:
        """A clip that passes everything, but for what is said. Returns its id."""
        sha256 = sha256 or hashlib.sha256(source.encode()).hexdigest()
        uri = uri or f"file:///pool/{source}.mp4"
        end = start + (1 if image else num_frames)
        rate = fps or 1.0
        clear = start if clear is None else clear
        key = clip_id(sha256, start, end)
        self.add_source(uri, sha256, tags=tags)
        self.clips.append(
            {
                "ok": True,
                "clip_id": key,
                "source_uri": uri,
                "source_sha256": sha256,
                "media_kind": "image" if image else "video",
                "start_frame": start,
                "end_frame": end,
                "start_s": start / rate,
                "end_s": end / rate,
                "clear_frame": clear,
                "clear_s": clear / rate,
                "fps": None if image else fps,
                "is_vfr": False,
                "width": size_WH[0],
                "height": size_WH[1],
            }
        )
        if "corpus" not in without:
            self.corpus.append(
                {
                    "clip_id": key,
                    "duplicate_of": duplicate_of,
                    "similarity": 0.99 if duplicate_of else None,
                    "cluster": None if duplicate_of else cluster,
                    "cluster_distance": None if duplicate_of else 0.1,
                    "weight": None if duplicate_of else weight,
                }
            )
        if approved is not None:
            self.approvals.append({"clip_id": key, "approved": approved, "reviewer": None})
        for stage, good in GOOD_SCORES.items():
            if stage in without or duplicate_of or (image and stage in {"motion", "camera"}):
                continue
            row = {"clip_id": key, "ok": True, **good, **scores.get(stage, {})}
            self.scores[stage].append(row)
        return key

    def fail_stage(self, key: str, stage: str) -> None:
        """A row that says that the stage has no result."""
        row = {"clip_id": key, "ok": False, "error_class": "one_color", "error": "one color"}
        self.scores[stage].append(row)

    def add_source(self, uri: str, sha256: str, *, tags: tuple[str, ...] = ()) -> None:
        self.sources[uri] = {
            "ok": True,
            "source_uri": uri,
            "listing_id": "1",
            "sha256": sha256,
            "provenance": {"licence": "CC0-1.0", "origin_url": None, "tags": tags},
        }

    def add_failed_source(self, uri: str) -> None:
        """A source that was listed and could not be split."""
        sha256 = hashlib.sha256(uri.encode()).hexdigest()
        self.add_source(uri, sha256)
        self.clips.append(self._bad_row(uri, sha256, "decode_error", 0, 0))

    def add_dropped_shot(self, source: str, reason: str, start: int, end: int) -> None:
        uri, sha256 = f"file:///pool/{source}.mp4", hashlib.sha256(source.encode()).hexdigest()
        self.add_source(uri, sha256)
        self.clips.append(self._bad_row(uri, sha256, reason, start, end))

    def _bad_row(self, uri: str, sha256: str, reason: str, start: int, end: int) -> dict[str, Any]:
        return {
            "ok": False,
            "error_class": reason,
            "error": reason,
            "clip_id": clip_id(sha256, start, end) if end else "",
            "source_uri": uri,
            "source_sha256": sha256,
            "media_kind": "video",
            "start_frame": start,
            "end_frame": end,
            "start_s": start / 24,
            "end_s": end / 24,
            "clear_frame": start,
            "clear_s": start / 24,
            "is_vfr": False,
            "width": 0,
            "height": 0,
        }

    def write(self, store: Store) -> dict[str, str]:
        rows: dict[str, list[dict[str, Any]]] = {
            "sources": list(self.sources.values()),
            "clips": self.clips,
            "corpus": self.corpus,
            **self.scores,
        }
        if self.approvals:
            rows["approvals"] = self.approvals
        tables = {}
        for step, content in rows.items():
            digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()[:16]
            tables[step] = digest
            open_table(store, step, digest).write_part("all", content, seconds=0.0)
        return tables


def full_scores() -> ClipScores:
    return ClipScores.model_validate(GOOD_SCORES)
