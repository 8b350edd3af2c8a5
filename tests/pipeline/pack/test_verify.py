"""Each kind of damage is found, and the shard that has it is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.pack.verify import verify_manifest
from tests.pipeline.pack.conftest import Output

Damage = Callable[[Path, Path], Path]


def remove(tar: Path, index: Path) -> Path:
    tar.unlink()
    return tar


def remove_index(tar: Path, index: Path) -> Path:
    index.unlink()
    return index


def truncate(tar: Path, index: Path) -> Path:
    tar.write_bytes(tar.read_bytes()[:-700])
    return tar


def flip_a_bit(tar: Path, index: Path) -> Path:
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    return tar


def empty(tar: Path, index: Path) -> Path:
    tar.write_bytes(b"")
    return tar


def damage_index(tar: Path, index: Path) -> Path:
    index.write_bytes(index.read_bytes()[:-9])
    return index


def add_a_copy(tar: Path, index: Path) -> Path:
    extra = tar.with_name(tar.name.replace("-000000", "-000099"))
    shutil.copy(tar, extra)
    return extra


def add_a_stranger(tar: Path, index: Path) -> Path:
    extra = tar.with_name("extra.tar")
    shutil.copy(tar, extra)
    return extra


@pytest.mark.parametrize(
    "damage",
    [
        remove,
        remove_index,
        truncate,
        flip_a_bit,
        empty,
        damage_index,
        add_a_copy,
        add_a_stranger,
    ],
)
def test_damage_is_found_and_named(make_output: Callable[..., Output], damage: Damage) -> None:
    output = make_output()
    entry = output.run().shards[0]
    folder = output.path("shards/tier-1")
    manifest = str(folder / "manifest.json")
    assert verify_manifest(manifest).ok
    damaged = damage(folder / entry.path, folder / entry.index_path)
    report = verify_manifest(manifest)
    named = {problem.shard for problem in report.problems}
    assert str(damaged.relative_to(folder)) in named


@pytest.mark.parametrize("field", ["num_samples", "num_frames", "duration_s", "num_bytes"])
def test_a_total_that_is_wrong_is_found(make_output: Callable[..., Output], field: str) -> None:
    output = make_output()
    output.run()
    path = output.path("shards/tier-1/manifest.json")
    manifest = json.loads(path.read_text())
    manifest["totals"][field] += 1
    path.write_text(json.dumps(manifest))
    assert [p.shard for p in verify_manifest(str(path)).problems] == ["manifest.json"]


def test_a_missing_or_foreign_manifest_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"schema_version": 2}')
    for name in ("none.json", "other.json"):
        assert [p.shard for p in verify_manifest(str(tmp_path / name)).problems] == [name]
