"""`OUTPUT/run.json`: what the last run did, with which config, and which tables are current.

The record is for people and for the commands that look at an output (`funnel`, `explain`). It
carries times, so it is the one file that two equal runs do not write alike; nothing that ends in a
shard or a manifest is read from it.
"""

import importlib.metadata
import json
import platform
from typing import Any, Literal

from pydantic import ValidationError

from pipeline.caption.usage import CaptionUsage
from pipeline.storage import Store
from schemas.base import StrictModel
from schemas.shard import SCHEMA_VERSION, Funnel
from schemas.tier import TierName

RUN_FILE = "run.json"
_PACKAGES = (
    "av",
    "faiss-cpu",
    "numpy",
    "onnxruntime",
    "opencv-python",
    "pyarrow",
    "ray",
    "rapidocr",
)


class RunRecordError(ValueError):
    """There is no readable record: one line with the place and the remedy."""


class PassTiming(StrictModel):
    """One pass: items that were worked on in this run; done ones were done before."""

    name: str
    num_done_before: int
    num_ok: int
    num_failed: int
    seconds: float
    reasons: dict[str, int] = {}


class TierResult(StrictModel):
    tier: TierName
    manifest: str
    funnel: Funnel
    captioning: CaptionUsage | None = None  # of what a model was asked in this run


class RunRecord(StrictModel):
    schema_version: Literal[1] = SCHEMA_VERSION
    verdict: Literal["running", "succeeded", "failed", "interrupted"]
    error: str | None = None
    engine: str
    inputs: tuple[str, ...]
    seconds: float = 0.0
    config: dict[str, Any]
    versions: dict[str, str]
    tables: dict[str, str] = {}  # step -> fingerprint of the current table
    weights: dict[str, str] = {}  # model_id -> sha256
    passes: tuple[PassTiming, ...] = ()
    tiers: tuple[TierResult, ...] = ()
    num_sources: int = 0
    num_failed_sources: int = 0

    def write(self, store: Store) -> None:
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True)
        store.write_bytes(RUN_FILE, text.encode())


def read_run_record(store: Store) -> RunRecord:
    """The record of the last run on this output. Raises RunRecordError."""
    place = store.full(RUN_FILE)
    if not store.exists(RUN_FILE):
        raise RunRecordError(f"{place}: not there; run the pipeline on this output first")
    try:
        return RunRecord.model_validate_json(store.read_bytes(RUN_FILE))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RunRecordError(
            f"{place}: not a record of this version ({first['msg']}); run the pipeline again"
        ) from error


def versions() -> dict[str, str]:
    """Versions of Python, of this project and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in ("reelsieve", *_PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a checkout, or an optional one that is not installed
    return found
