"""Runs the job as a process of its own, to be killed or refused, and looks at what it leaves."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.walks import shard_bytes

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 200


def command(
    pool: Path, output: Path, config: Path, *more: str, engine: str = "inline"
) -> list[str]:
    places = ["--input", str(pool), "--output", str(output), "--config", str(config)]
    start = [sys.executable, "pipeline/run.py", "--tier", "1", "--engine", engine]
    return [*start, *places, *more]


def plain_environment() -> dict[str, str]:
    """Of a person's shell: the job itself chooses how its Ray authenticates."""
    return {name: one for name, one in os.environ.items() if not name.startswith("RAY_AUTH_")}


def run(
    line: Sequence[str], *, before: Callable[[], None] | None = None
) -> "subprocess.CompletedProcess[str]":
    """`before` is called in the child, ahead of the program."""
    return subprocess.run(
        line,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        preexec_fn=before,
        env={**plain_environment(), "COLUMNS": "200"},
    )


def error_lines(done: "subprocess.CompletedProcess[str]") -> list[str]:
    """What a person reads of a refusal. Fails on a traceback."""
    assert "Traceback" not in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def num_markers(output: Path) -> int:
    return sum(1 for _ in output.glob("tables/*/*/_done/*.json"))


# Tables that are written ahead of the one whose marker finishes the part.
_COMPLETED_BY = {"shots": "clips", "shot_candidates": "clips", "pack": "pack_shards"}


def finished_parts(output: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of each finished part: a part that is redone changes both."""
    found = {}
    for marker in output.glob("tables/*/*/_done/*.json"):
        step = marker.parts[-4]
        last = output / "tables" / _COMPLETED_BY.get(step, step) / Path(*marker.parts[-3:])
        if last.exists():
            part = marker.parent.parent / f"part-{marker.stem}.parquet"
            found[part] = (part.stat().st_ino, part.stat().st_mtime_ns)
    return found


def assert_same_shards(output: Path, undisturbed: Path) -> None:
    """Shards, indexes and manifest, byte for byte, and nothing beside them."""
    found, wanted = shard_bytes(output), shard_bytes(undisturbed)
    assert sorted(found) == sorted(wanted)
    differing = [path for path in wanted if found[path] != wanted[path]]
    assert differing == [], [(found[path][:4000], wanted[path][:4000]) for path in differing[-1:]]
