"""Failure is a value: every row of every table says whether it holds a result, and if not, why."""

from typing import Self

from pydantic import model_validator

from schemas.base import StrictModel


class Failure(StrictModel):
    """Why a step has no result for an item. Recorded, never turned into a score.

    `error_class` is a short stable word that can be counted (`no_video_stream`, `timeout`);
    `error` is one line for a person, naming the value at fault.
    """

    error_class: str
    error: str


class StatusRow(StrictModel):
    """The status columns that every table has."""

    ok: bool = True
    error_class: str | None = None
    error: str | None = None

    @model_validator(mode="after")
    def _failed_rows_have_a_reason(self) -> Self:
        if self.ok == (self.error_class is not None):
            raise ValueError(f"ok={self.ok} contradicts error_class={self.error_class!r}")
        return self
