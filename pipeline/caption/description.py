"""The `descriptions` table: what a model wrote about each clip, and how it came to be."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pipeline.arrow import score_schema
from pipeline.caption.answer import Words
from pipeline.caption.backend import Described, Usage
from pipeline.caption.config import CAPTION_VERSION, CaptionConfig
from pipeline.caption.merge import merge_words
from pipeline.caption.prompt import prompt_sha256
from pipeline.storage import Store
from pipeline.tables import Table
from schemas.base import canonical_json, fingerprint
from schemas.caption import VLM_FIELDS
from schemas.status import Failure

STEP = "descriptions"


class Description(Words):
    """The seven descriptions with their provenance. In a failed row the words are null."""

    captioner: str  # what `StructuredCaption.captioner` says
    backend: str
    model: str
    revision: str
    prompt_sha256: str
    sampling: str  # JSON
    constraint: str  # what made the answers JSON; of several windows the weakest
    seeds: tuple[int, ...]  # of the last try of each window
    frames_sha256: str  # of all pictures that were looked at
    num_windows: int
    num_answers: int  # those that were not taken included
    prompt_tokens: int | None
    answer_tokens: int | None
    seconds: float  # from question to answer, summed over windows


def descriptions_fingerprint(config: CaptionConfig, tables: Mapping[str, str]) -> str:
    """Changes with the model, its revision, the prompt, the sampling, the pictures' crop."""
    return fingerprint(
        CAPTION_VERSION,
        config.said_by_model(),
        prompt_sha256(config.vlm),
        tables.get("crop", ""),
    )


def descriptions_table(store: Store, table_fingerprint: str) -> Table:
    return Table(store, STEP, table_fingerprint, score_schema(Description))


def captioner_name(config: CaptionConfig) -> str:
    """Backend, model, revision and prompt: `endpoint:some/model@main+1a2b3c4d`."""
    if config.captioner == "measured":
        return config.captioner
    return f"{config.captioner}:{config.model}+{prompt_sha256(config.vlm)[:8]}"


def description_row(
    clip_id: str, windows: Sequence[Described], config: CaptionConfig
) -> dict[str, Any]:
    """The row of a clip from what became of its windows, in the order of time.

    A clip has failed with the first window that has: half a description is none.
    """
    usage = sum((window.usage for window in windows), Usage())
    name, _, revision = config.model.rpartition("@")
    row: dict[str, Any] = {
        "clip_id": clip_id,
        "captioner": captioner_name(config),
        "backend": config.captioner,
        "model": name,
        "revision": revision,
        "prompt_sha256": prompt_sha256(config.vlm),
        "sampling": canonical_json(config.vlm.sampling),
        "constraint": max((window.constraint for window in windows), key=_weakness),
        "seeds": [window.seed for window in windows],
        "frames_sha256": _digest(window.request.frames_sha256 for window in windows),
        "num_windows": len(windows),
        **usage.model_dump(),
    }
    words = [window.result for window in windows if isinstance(window.result, Words)]
    if len(words) < len(windows):
        failures = [window.result for window in windows if isinstance(window.result, Failure)]
        return row | {"ok": False, **failures[0].model_dump()}
    return row | {"ok": True, **merge_words(words, config.vlm.answer).model_dump()}


def failed_row(clip_id: str, failure: Failure) -> dict[str, Any]:
    """Of a clip that the model was not asked about."""
    return {"clip_id": clip_id, "ok": False, **failure.model_dump()}


def read_descriptions(table: Table, clip_ids: Collection[str]) -> dict[str, Words | Failure]:
    """What the finished parts hold of these clips."""
    columns = ["clip_id", "ok", "error_class", "error", *VLM_FIELDS]
    wanted = set(clip_ids)
    found: dict[str, Words | Failure] = {}
    for row in table.read(columns).to_pylist():
        if row["clip_id"] not in wanted:
            continue
        if row["ok"]:
            found[row["clip_id"]] = Words.model_validate({name: row[name] for name in VLM_FIELDS})
        else:
            found[row["clip_id"]] = Failure(error_class=row["error_class"], error=row["error"])
    return found


_WEAKNESS = ("grammar", "json_schema", "plain_schema", "json_object", "prompt")


def _weakness(constraint: str) -> int:
    return _WEAKNESS.index(constraint)


def _digest(hashes: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
