"""Judgements on disk: added one by one, by any number of processes, and never changed.

    OUTPUT/judgements/log/<judgement_id>.json     one judgement, written whole or not at all
    OUTPUT/judgements/part-<digest>.parquet       many, after `compact`

An answer is given after the file is synced, so what was acknowledged survives a crash. A judgement
that is sent again finds its own file. Compaction writes the part before it removes what went into
it; a reader reads the log first and the parts then, and takes each id once.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from pipeline.arrow import read_parquet, schema_of, to_table
from pipeline.review.judgement import Judgement, JudgementError, first_line
from pipeline.storage import StorageError, Store
from schemas.base import canonical_json

FOLDER = "judgements"
_LOG = f"{FOLDER}/log"
SCHEMA = schema_of(Judgement)


class JudgementLog:
    """The judgements of one output. Reads from disk only what it has not read yet."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, Judgement] = {}
        self._parts: set[str] = set()

    def add(self, judgement: Judgement) -> None:
        """Returns once it is on disk. Raises JudgementError for an id that says something else."""
        path = f"{_LOG}/{judgement.judgement_id}.json"
        known = self._known.get(judgement.judgement_id)
        if known is None and self.store.exists(path):
            known = self._parse(path, self.store.read_bytes(path))
        if known is not None:
            if _content(known) != _content(judgement):
                raise JudgementError(
                    f"judgement {judgement.judgement_id} is there and says something else"
                )
            return
        self.store.write_bytes(path, canonical_json(judgement).encode() + b"\n")
        self._known[judgement.judgement_id] = judgement

    def read(self) -> list[Judgement]:
        """All of them, in the order of their time. Raises StorageError for a damaged file."""
        for name in self.store.list(_LOG):
            if name.removesuffix(".json") in self._known:
                continue
            try:
                found = self._parse(f"{_LOG}/{name}", self.store.read_bytes(f"{_LOG}/{name}"))
            except FileNotFoundError:
                continue  # another process compacted it: a part holds it, and is read next
            self._known[found.judgement_id] = found
        while missing := [name for name in self._part_names() if name not in self._parts]:
            for name in missing:
                self._read_part(name)
        return sorted(self._known.values(), key=lambda one: (one.time, one.judgement_id))

    def num_loose(self) -> int:
        """Judgements that lie in files of their own."""
        return len(self.store.list(_LOG))

    def compact(self) -> int:
        """Put everything into one Parquet file; the number of judgements in it."""
        files = [f"{_LOG}/{name}" for name in self.store.list(_LOG)]
        parts = [f"{FOLDER}/{name}" for name in self._part_names()]
        judgements = self.read()
        if files or len(parts) > 1:
            data = parquet_bytes(judgements)
            name = f"part-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
            self.store.write_bytes(f"{FOLDER}/{name}", data)
            self._parts.add(name)
            for path in (*files, *parts):
                if path != f"{FOLDER}/{name}":
                    self.store.remove(path)
        return len(judgements)

    def _part_names(self) -> list[str]:
        return [name for name in self.store.list(FOLDER) if name.endswith(".parquet")]

    def _read_part(self, name: str) -> None:
        path = f"{FOLDER}/{name}"
        try:
            rows = read_parquet(self.store.read_bytes(path)).to_pylist()
        except FileNotFoundError:
            return  # compacted into another one, which the next look finds
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(f"{self.store.full(path)}: damaged ({error})") from error
        for row in rows:
            one = Judgement.model_validate(row)
            self._known.setdefault(one.judgement_id, one)
        self._parts.add(name)

    def _parse(self, path: str, data: bytes) -> Judgement:
        try:
            return Judgement.model_validate_json(data)
        except ValidationError as error:
            raise StorageError(
                f"{self.store.full(path)}: not a judgement ({first_line(error)})"
            ) from error


def counted(judgements: Iterable[Judgement]) -> list[Judgement]:
    """What counts: the last word of each reviewer on each clip that was not withdrawn.

    `judgements` are in the order of their time, and so is the answer. A reviewer withdraws only
    what is his own.
    """
    ordered = list(judgements)
    withdrawn = {(one.reviewer, one.withdraws) for one in ordered if one.withdraws is not None}
    last: dict[tuple[str, str], Judgement] = {}
    for one in ordered:
        if one.verdict != "withdraw" and (one.reviewer, one.judgement_id) not in withdrawn:
            last.pop((one.clip_id, one.reviewer), None)
            last[one.clip_id, one.reviewer] = one
    return list(last.values())


def parquet_bytes(judgements: Sequence[Judgement]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(to_table(judgements, SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def _content(judgement: Judgement) -> Judgement:
    """Without its time, which is that of the first arrival."""
    return judgement.model_copy(update={"time": ""})
