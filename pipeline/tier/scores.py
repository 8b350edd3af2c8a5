"""The scores that a tier may set limits on: every number in `schemas.scores.ClipScores`."""

import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from schemas.scores import ClipScores

MOTION_STAGES = frozenset({"motion", "camera"})  # an image has neither


def _number_fields() -> Mapping[str, tuple[str, ...]]:
    fields: dict[str, tuple[str, ...]] = {}
    for stage, model in stage_models().items():
        names = (name for name, info in model.model_fields.items() if _is_number(info.annotation))
        fields[stage] = tuple(names)
    return fields


def stage_models() -> Mapping[str, type[BaseModel]]:
    """Stage name -> the model of its result, in the order of `ClipScores`."""
    models: dict[str, type[BaseModel]] = {}
    for stage, info in ClipScores.model_fields.items():
        (model,) = (arg for arg in get_args(info.annotation) if arg is not type(None))
        models[stage] = model
    return models


def _is_number(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _is_number(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_is_number(arg) for arg in get_args(annotation))
    return annotation in (int, float)


NUMBER_FIELDS = _number_fields()  # stage -> names of its numbers
SCORE_PATHS = tuple(f"{stage}.{name}" for stage, names in NUMBER_FIELDS.items() for name in names)
