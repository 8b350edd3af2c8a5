"""From TOML files and `--set a.b=c` to one TrainConfig.

A file may name others under `extends` (paths beside itself); its own keys go over theirs, table by
table. So a recipe and its trial version on a CPU differ by one small file.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from modeling.train.config import TrainConfig
from modeling.train.errors import ConfigError

CONFIG_FOLDER = Path(__file__).resolve().parents[1] / "configs"
_NONE = ("none", "null")


def read_tables(path: Path) -> dict[str, Any]:
    """The tables of a file and of those that it extends. Raises ConfigError."""
    return _read(path, ())


def find_config(name: str) -> Path:
    """A path, or the name of a recipe that comes along: `vae` is modeling/configs/vae.toml."""
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return path
    shipped = CONFIG_FOLDER / f"{name.removesuffix('.toml')}.toml"
    if path.name == name and shipped.is_file():
        return shipped
    known = ", ".join(sorted(each.stem for each in CONFIG_FOLDER.glob("[!_]*.toml")))
    raise ConfigError(f"there is no config {name}; recipes that come along: {known}")


def parse_setting(text: str) -> dict[str, Any]:
    """`a.b=c` as nested tables. The value is TOML (a bare word is a string; none is no value)."""
    key, equals, value = text.partition("=")
    names = [name.strip() for name in key.split(".")]
    if not equals or not all(names):
        raise ConfigError(f"--set needs KEY=VALUE, such as optim.learning_rate=1e-4, got {text!r}")
    setting: Any = _parse_value(value.strip())
    for name in reversed(names):
        setting = {name: setting}
    tables: dict[str, Any] = setting
    return tables


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; anything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merge(old, value)
        merged[key] = value
    return merged


def build_config(layers: Sequence[Mapping[str, Any]]) -> TrainConfig:
    """Later layers go over earlier ones. Raises ConfigError that names the first wrong key."""
    tables: dict[str, Any] = {}
    for layer in layers:
        tables = merge(tables, layer)
    try:
        return TrainConfig.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(first_problem(error)) from error


def first_problem(error: ValidationError) -> str:
    """One line: the key and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "config"
    if first["type"] == "extra_forbidden":
        return f"{key}: there is no such key"
    message = first["msg"].removeprefix("Value error, ")
    given = first["input"]
    shown = f", got {given!r}" if isinstance(given, str | int | float) else ""
    return f"{key}: {message}{shown if 'got' not in message else ''}"


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in above:
        raise ConfigError(f"{path} extends itself")
    try:
        with path.open("rb") as file:
            own = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    tables: dict[str, Any] = {}
    for name in own.pop("extends", []):
        tables = merge(tables, _read(path.parent / name, (*above, path)))
    return merge(tables, own)


def _parse_value(text: str) -> object:
    if text.lower() in _NONE:
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
