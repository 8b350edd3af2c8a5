from pathlib import Path

import pytest

from pipeline.config_file import ConfigError, apply_overrides, merge, read_toml, validate
from schemas.base import StrictModel


class _Inner(StrictModel):
    depth: int = 3


class _Outer(StrictModel):
    inner: _Inner = _Inner()
    name: str = "a"


def test_overrides_are_toml_values_and_bare_words_are_strings() -> None:
    tree = apply_overrides({"inner": {"depth": 1}}, ["inner.depth=7", "name=plain", "x.y=[1, 2]"])
    assert tree == {"inner": {"depth": 7}, "name": "plain", "x": {"y": [1, 2]}}


def test_overrides_leave_the_given_tree_alone() -> None:
    tree = {"inner": {"depth": 1}}
    apply_overrides(tree, ["inner.depth=7"])
    assert tree == {"inner": {"depth": 1}}


@pytest.mark.parametrize("override", ["inner.depth", "=3", "inner..depth=3", "name.x=1"])
def test_a_malformed_override_is_named(override: str) -> None:
    with pytest.raises(ConfigError, match=f"--set {override}"):
        apply_overrides({"name": "a"}, [override])


def test_merge_goes_into_tables_and_replaces_values() -> None:
    merged = merge({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}, "d": [2]})
    assert merged == {"a": {"b": 1, "c": 3}, "d": [2]}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"inner": {"dept": 1}}, "run.toml: inner.dept = 1: no such setting"),
        ({"inner": {"depth": "deep"}}, "run.toml: inner.depth = 'deep'"),
        ({"name": 5, "inner": 2}, "and 1 more"),
    ],
)
def test_a_wrong_setting_is_one_line_with_key_and_value(
    tree: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(_Outer, tree, where="run.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        read_toml(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(ConfigError, match=r"bad\.toml: not TOML"):
        read_toml(tmp_path / "bad.toml")
