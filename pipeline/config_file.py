"""From TOML files and `--set a.b=c` to a checked config, or one clear line about what is wrong."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from schemas.base import StrictModel

M = TypeVar("M", bound=StrictModel)


class ConfigError(ValueError):
    """The config file or an override is wrong: one line with the file, the key and the value."""


def read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such config file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def apply_overrides(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of the tree with each `a.b=value` set. Values are TOML; a bare word is a string."""
    result = _copy(tree)
    for override in overrides:
        dotted, equals, text = override.partition("=")
        keys = dotted.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {override}: write it as section.key=value")
        node = result
        for key in keys[:-1]:
            child = node.setdefault(key, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--set {override}: {key} is a value, not a section")
            node = child
        node[keys[-1]] = _value(text.strip())
    return result


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; every other value of `over` replaces that of `base`."""
    result = _copy(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, Mapping)
        result[key] = merge(old, value) if both and old is not None else value
    return result


def validate(model: type[M], tree: Mapping[str, Any], *, where: str) -> M:
    """Build the model. Raises ConfigError that names the first wrong key and its value."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "config"
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "no such setting"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        given = repr(first["input"])[:120]
        raise ConfigError(f"{where}: {key} = {given}: {message}{more}") from error


def _copy(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in tree.items()}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
