"""What `ray job submit --working-dir .` would upload from a clean checkout fits Ray's limit."""

import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
_RAY_LIMIT_BYTES = 100 << 20  # of the Jobs API
_OUR_LIMIT_BYTES = 60 << 20  # leaves room for perception models that are still to come


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files, and beside them what a used checkout collects."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    folder = tmp_path_factory.mktemp("checkout")
    for name in names.stdout.decode().split("\0"):
        source = ROOT / name
        if name and source.is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
    for litter in (
        ".git/objects/pack",
        ".venv/lib/big.so",
        "runs/demo/tables/x.parquet",
        "film.mp4",
        "modeling/model.safetensors",
        "pipeline/__pycache__/run.pyc",
        ".mypy_cache/x",
    ):
        (folder / litter).parent.mkdir(parents=True, exist_ok=True)
        (folder / litter).write_bytes(bytes(1000))
    return folder


def _uploaded(folder: Path) -> dict[str, int]:
    """Path -> bytes, by Ray's own walk over the folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own modules
        from ray._private.runtime_env import packaging
    travel: Callable[..., Any] = packaging._dir_travel
    sizes: dict[str, int] = {}

    def note(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size

    travel(folder, [], note, include_gitignore=True)
    return sizes


def test_the_upload_fits_and_holds_what_a_job_needs(checkout: Path) -> None:
    sizes = _uploaded(checkout)
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert sum(sizes.values()) < _OUR_LIMIT_BYTES < _RAY_LIMIT_BYTES, largest
    assert {"pipeline/engine/__init__.py", "schemas/base.py", "pyproject.toml"} <= sizes.keys()


def test_what_a_used_checkout_collects_stays_behind(checkout: Path) -> None:
    tops = {path.split("/")[0] for path in _uploaded(checkout)}
    assert not tops & {".git", ".venv", "runs", "film.mp4", ".mypy_cache", "tests"}
    assert not [p for p in _uploaded(checkout) if p.endswith((".safetensors", ".pyc"))]
