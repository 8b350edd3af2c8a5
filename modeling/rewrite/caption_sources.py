"""Structured captions where curation leaves them: in shards, or in its tables."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from modeling.rewrite.errors import RewriteError
from modeling.rewrite.synthetic import SourcedCaption
from schemas.caption import StructuredCaption
from schemas.shard import ShardManifest, ShardSample


def captions_of_shards(manifest: Path) -> Iterator[SourcedCaption]:
    """In the order of the shards. The source is the video's content hash.

    Raises:
        RewriteError: no manifest, or a shard that cannot be read.

    """
    try:
        content = ShardManifest.model_validate_json(manifest.read_text())
    except (OSError, ValidationError) as error:
        raise RewriteError(f"{manifest} is no shard manifest that can be read") from error
    for entry in content.shards:
        path = manifest.parent / entry.path
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    file = tar.extractfile(member) if member.name.endswith(".json") else None
                    if file is None:
                        continue
                    sample = ShardSample.model_validate_json(file.read())
                    yield SourcedCaption(sample.caption, sample.source_sha256, sample.clip_id)
        except (OSError, tarfile.TarError, ValidationError) as error:
            raise RewriteError(f"the shard {path} cannot be read") from error


def captions_of_tables(captions: Path, clips: Path) -> Iterator[SourcedCaption]:
    """From `tables/captions/<fingerprint>` and `tables/clips/<fingerprint>`, by clip id.

    Raises:
        RewriteError: a table is missing or is another one.

    """
    names = list(StructuredCaption.model_fields)
    source_of: dict[str, str] = {}
    for row in _rows(clips, ["clip_id", "source_sha256"]):
        source_of[str(row["clip_id"])] = str(row["source_sha256"])
    rows = [row for row in _rows(captions, ["clip_id", "ok", *names]) if row["ok"]]
    for row in sorted(rows, key=lambda row: str(row["clip_id"])):
        clip_id = str(row["clip_id"])
        if clip_id not in source_of:
            raise RewriteError(f"{clips} has no clip {clip_id}: the two tables are of two runs")
        fields = {name: row[name] for name in names}
        try:
            caption = StructuredCaption.model_validate_json(json.dumps(fields))
        except ValidationError as error:
            raise RewriteError(f"the caption of clip {clip_id} in {captions} is broken") from error
        yield SourcedCaption(caption, source_of[clip_id], clip_id)


def _rows(folder: Path, columns: list[str]) -> list[dict[str, object]]:
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise RewriteError(f"{folder} holds no table")
    rows: list[dict[str, object]] = []
    for part in parts:
        try:
            rows += pq.read_table(part, columns=columns).to_pylist()
        except (OSError, KeyError, pa.ArrowException) as error:
            raise RewriteError(f"{part} is no table with {', '.join(columns)}") from error
    return rows
