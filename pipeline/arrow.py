"""Arrow schemas derived from the row models, so that a table's columns are written down once."""

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

STATUS_FIELDS = (
    pa.field("ok", pa.bool_(), nullable=False),
    pa.field("error_class", pa.string()),
    pa.field("error", pa.string()),
)
_SCALARS: Mapping[type, pa.DataType] = {
    str: pa.string(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    bytes: pa.binary(),
}


def read_parquet(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file that is in memory, read by this thread alone. Raises pa.ArrowException.

    A thread of Arrow's that still lets go of Python's memory when the interpreter ends takes the
    whole process down ("terminate called without an active exception"): under load every fourth
    program that read `io.BytesIO` files with threads and ended at once.
    """
    # Not pq.read_table: it reads as a dataset, which starts a thread whatever it is told.
    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
    return file.read(columns=columns, use_threads=False)


def schema_of(model: type[BaseModel]) -> pa.Schema:
    """One column per field of the model, in its order; nested models are structs."""
    return pa.schema(_fields(model))


def score_schema(model: type[BaseModel]) -> pa.Schema:
    """`clip_id`, the status columns, then the score's fields, null where the stage failed."""
    score_fields = [field.with_nullable(True) for field in _fields(model)]
    key = pa.field("clip_id", pa.string(), nullable=False)
    fields: list[pa.Field[Any]] = [key, *STATUS_FIELDS, *score_fields]
    return pa.schema(fields)


def to_table(rows: Iterable[BaseModel | Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as an Arrow table; a key that the schema lacks is an error, not a dropped column."""
    plain = [row.model_dump(mode="json") if isinstance(row, BaseModel) else row for row in rows]
    names = set(schema.names)
    for row in plain:
        if unknown := row.keys() - names:
            raise ValueError(f"columns {sorted(unknown)} are not in the table {sorted(names)}")
    return pa.Table.from_pylist(plain, schema=schema)


def _fields(model: type[BaseModel]) -> list["pa.Field[Any]"]:
    fields: list[pa.Field[Any]] = []
    for name, info in model.model_fields.items():
        data_type, nullable = _arrow_type(info.annotation)
        fields.append(pa.field(name, data_type, nullable=nullable))
    return fields


def _arrow_type(annotation: Any) -> tuple[pa.DataType, bool]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _arrow_type(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        inner = [arg for arg in get_args(annotation) if arg is not type(None)]
        kinds = {_arrow_type(arg)[0] for arg in inner}
        if len(kinds) != 1:
            raise TypeError(f"no single Arrow type for {annotation}")
        return kinds.pop(), len(inner) < len(get_args(annotation))
    if origin is Literal:
        return _SCALARS[type(get_args(annotation)[0])], False
    if origin is tuple or origin is list:
        return pa.list_(_arrow_type(get_args(annotation)[0])[0]), False
    if origin is dict:
        return pa.map_(pa.string(), _arrow_type(get_args(annotation)[1])[0]), False
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(_fields(annotation)), False
    return _SCALARS[annotation], False
