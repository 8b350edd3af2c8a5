"""Judgements to and from CSV and Parquet. A file that was exported is imported to the same rows."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.review.judgement import (
    CaptionFix,
    Criteria,
    Judgement,
    JudgementError,
    parse_judgement,
)
from pipeline.review.log import JudgementLog, parquet_bytes

_NESTED = {"criteria": tuple(Criteria.model_fields), "fix": tuple(CaptionFix.model_fields)}
_PLAIN = tuple(name for name in Judgement.model_fields if name not in _NESTED)
CSV_COLUMNS = (*_PLAIN, *(f"{outer}.{name}" for outer in _NESTED for name in _NESTED[outer]))
# A spreadsheet would run a text that begins so; an apostrophe before it is taken off again.
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r", "'")


def csv_text(judgements: Iterable[Judgement]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_flat(one) for one in judgements)
    return buffer.getvalue()


def export_file(judgements: Sequence[Judgement], path: Path) -> None:
    """By the file's suffix. Raises JudgementError for another one, or where it is not writable."""
    is_csv = _is_csv(path)
    data = csv_text(judgements).encode() if is_csv else parquet_bytes(judgements)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise JudgementError(f"{path}: not writable: {error.strerror}") from error


def import_file(path: Path, log: JudgementLog) -> tuple[int, int]:
    """(judgements in the file, of these new). All are checked before the first is added.

    Raises JudgementError with the row, counted from 1, that is wrong.
    """
    judgements = [_parse(path, row, values) for row, values in enumerate(_rows(path), 1)]
    known = {one.judgement_id for one in log.read()}
    for one in judgements:
        log.add(one)
    new = {one.judgement_id for one in judgements} - known
    return len(judgements), len(new)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        if not _is_csv(path):
            return pq.read_table(path).to_pylist()
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            if unknown := [name for name in columns if name not in CSV_COLUMNS]:
                raise JudgementError(f"{path}: no such column: {unknown[0]!r}")
            return [_nested(row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise JudgementError(f"{path}: cannot be read: {error}") from error


def _parse(path: Path, row: int, values: dict[str, Any]) -> Judgement:
    try:
        return parse_judgement(values)
    except JudgementError as error:
        raise JudgementError(f"{path}: row {row}: {error}") from error


def _flat(judgement: Judgement) -> dict[str, str]:
    values = judgement.model_dump(mode="json")
    flat = {name: values[name] for name in _PLAIN} | {"subsets": " ".join(judgement.subsets)}
    for outer, names in _NESTED.items():
        flat |= {f"{outer}.{name}": values[outer][name] for name in names}
    return {name: "" if value is None else _guarded(value) for name, value in flat.items()}


def _nested(flat: Mapping[str, str | None]) -> dict[str, Any]:
    """Empty cells are what was not said."""
    filled = {name: _unguarded(text) for name, text in flat.items() if text}
    values: dict[str, Any] = {name: filled[name] for name in _PLAIN if name in filled}
    values["subsets"] = filled.get("subsets", "").split()
    for outer, names in _NESTED.items():
        values[outer] = {n: filled[f"{outer}.{n}"] for n in names if f"{outer}.{n}" in filled}
    return values


def _guarded(value: Any) -> str:
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA_START) else text


def _unguarded(text: str) -> str:
    return text[1:] if text.startswith("'") else text


def _is_csv(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise JudgementError(f"{path}: name it .csv or .parquet")
    return suffix == ".csv"
