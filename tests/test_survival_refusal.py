"""What cannot be done is refused: exit code 1, one line with place and remedy, nothing harmed."""

import errno
import resource
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.__main__ import main
from pipeline.engine.output_lock import locked_output
from pipeline.pack.verify import verify_manifest
from tests.survival import assert_same_shards, command, error_lines, run
from tests.walks import curate, manifest, write_config, write_pool


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pool: Path, config: Path) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    curate(pool, output, config)
    return output


@pytest.fixture
def output(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


def refusal(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 1) -> str:
    """The one line that a refused command shows."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    shown = capsys.readouterr().err
    assert ended.value.code == code
    if code == 2:  # wrong usage, said by the parser in its box
        return shown
    (line,) = [line for line in shown.splitlines() if not line.startswith(("{", "INFO", "WARNING"))]
    assert line.startswith("error: ")
    return line


def job(pool: Path, output: Path, config: Path, *more: str) -> list[str]:
    return command(pool, output, config, *more)[2:]


@pytest.fixture
def arguments(pool: Path, config: Path, tmp_path: Path) -> list[str]:
    return ["run", *job(pool, tmp_path / "new", config)]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--tier", "9"], ["--tier 9", "choose 1-5"]),
        (["--engine", "spark"], ["--engine spark", "ray or inline"]),
        (["--set", "split.nonsense=1"], ["split.nonsense = 1", "no such setting"]),
        (["--set", "split.min_clip_s=-1"], ["split.min_clip_s = -1", "greater than"]),
        (["--set", "split"], ["--set split", "section.key=value"]),
        (["--config", "/nowhere.toml"], ["/nowhere.toml", "no such config file"]),
        (["--config", "/"], ["/", "cannot be read"]),
        (["--exclude", "/nowhere.txt"], ["/nowhere.txt", "cannot be read"]),
        (["--output", "/proc/nowhere"], ["/proc/nowhere", "choose another --output"]),
        (["--output", __file__], [__file__, "choose another --output"]),
        (["--output", f"{__file__}/below"], [__file__, "choose another --output"]),
        (["--input", "/nowhere"], ["/nowhere", "does not exist"]),
    ],
)
def test_a_wrong_option_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], more: list[str], words: list[str]
) -> None:
    line = refusal(capsys, [*arguments, *more])
    assert [word for word in words if word not in line] == []


def test_an_unknown_option_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert "--inptu" in refusal(capsys, [*arguments, "--inptu", "x"], code=2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["funnel", "{none}", "--tier", "1"], "run.json: not there"),
        (["explain", "{none}", "00"], "run.json: not there"),
        (["calibrate", "{none}", "--retain", "0.5"], "run.json: not there"),
        (["gc", "{none}"], "run.json: not there"),
        (["inspect", "{none}/manifest.json"], "{none}/manifest.json: cannot be read"),
        (["funnel", "{output}", "--tier", "six"], "no tier 'six'"),
        (["funnel", "{output}", "--tier", "1", "--set", "tiers.tier-1.x=1"], "tier"),
        (["explain", "{output}", "nothex"], "0 clips begin with 'nothex'"),
        (["calibrate", "{output}", "--retain", "7"], "retain must lie above 0 and at most 1"),
        (["inspect", "{output}/run.json"], "not a manifest of this version"),
    ],
)
def test_a_wrong_question_is_one_line(
    capsys: pytest.CaptureFixture[str],
    undisturbed: Path,
    tmp_path: Path,
    words: list[str],
    says: str,
) -> None:
    places = {"output": str(undisturbed), "none": str(tmp_path / "none")}
    line = refusal(capsys, [word.format(**places) for word in words])
    assert says.format(**places) in line
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_is_refused_and_the_first_goes_on(
    capsys: pytest.CaptureFixture[str], pool: Path, config: Path, output: Path, undisturbed: Path
) -> None:
    with locked_output(str(output)):
        before = (output / "run.json").read_bytes()
        line = refusal(capsys, ["run", *job(pool, output, config)])
        collecting = refusal(capsys, ["gc", str(output)])
    for shown in (line, collecting):
        assert str(output) in shown
        assert "another run writes here" in shown
        assert "choose another --output" in shown
    assert (output / "run.json").read_bytes() == before
    assert_same_shards(output, undisturbed)


def test_an_output_of_another_version_is_left_alone(
    capsys: pytest.CaptureFixture[str], pool: Path, config: Path, output: Path
) -> None:
    (output / "output.json").write_text('{"schema_version":99}')
    before = tree(output)
    line = refusal(capsys, ["run", *job(pool, output, config)])
    assert "schema version 99" in line
    assert "choose another --output" in line
    assert tree(output) == before


@pytest.mark.parametrize("num_writes", [0, 3, 10])
def test_a_full_disk_stops_the_run_and_harms_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    pool: Path,
    config: Path,
    output: Path,
    num_writes: int,
) -> None:
    """From the given write on nothing can be written any more, into a half written output."""
    changed = ["--set", "pack.encode.crf=30", "--set", "passes.clips_per_part=1"]
    shutil.rmtree(output / "tables" / "clarity")
    older = manifest(output)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_sync", full_after(2 * num_writes))
        line = refusal(capsys, ["run", *job(pool, output, config, *changed)])
    assert str(output) in line
    assert "no space left; free some and run the same command again" in line
    assert manifest(output) == older
    assert verify_manifest(str(output / "shards/tier-1/manifest.json")).ok
    assert list(output.rglob("*.tmp")) == []
    main_ok(["run", *job(pool, output, config, *changed)])
    assert verify_manifest(str(output / "shards/tier-1/manifest.json")).ok
    assert manifest(output)["plan"] != older["plan"]


def test_a_file_that_may_not_grow_is_a_refusal_too(
    pool: Path, config: Path, tmp_path: Path
) -> None:
    limit = 9000  # bytes: the tables fit, a shard does not
    done = run(
        command(pool, tmp_path / "run", config),
        before=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    (line,) = error_lines(done)
    assert str(tmp_path / "run") in line
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_dry_run_writes_nothing(
    capsys: pytest.CaptureFixture[str], pool: Path, config: Path, output: Path, tmp_path: Path
) -> None:
    before = tree(output)
    main_ok(["run", *job(pool, output, config, "--dry-run")])
    assert tree(output) == before
    assert "ingest" in capsys.readouterr().out
    main_ok(["run", *job(pool, tmp_path / "never", config, "--dry-run")])
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("done", "to do", "score: motion", "workers"))
    assert not (tmp_path / "never").exists()


def test_takedowns_and_garbage(
    capsys: pytest.CaptureFixture[str], pool: Path, config: Path, output: Path, tmp_path: Path
) -> None:
    """The run names what still holds an excluded source; gc removes that and nothing named."""
    takedown = tmp_path / "takedown.txt"
    takedown.write_text(f"{pool / 'two shots.mp4'}\n")
    main_ok(["run", *job(pool, output, config, "--exclude", str(takedown))])
    named = {shard["path"] for shard in manifest(output)["shards"]}
    holding = [line for line in capsys.readouterr().out.splitlines() if "of excluded" in line]
    assert len(holding) >= 1
    assert all(
        str(output / "shards/tier-1") in line and "gc removes it" in line for line in holding
    )

    leftover = output / "tables" / ".0123.tmp"
    leftover.write_bytes(b"half")
    old_joins = set(output.glob("tables/joined/*/part-*.parquet"))
    main_ok(["gc", str(output)])
    left = {str(p.relative_to(output / "shards/tier-1")) for p in output.glob("shards/*/*/*.tar")}
    assert left == named
    assert not leftover.exists()
    joins = set(output.glob("tables/joined/*/part-*.parquet"))
    assert len(joins) == 1 < len(old_joins)
    assert verify_manifest(str(output / "shards/tier-1/manifest.json")).ok
    main_ok(["run", *job(pool, output, config, "--exclude", str(takedown))])
    assert "of excluded" not in capsys.readouterr().out
    assert set(output.glob("tables/joined/*/part-*.parquet")) == joins


def main_ok(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def full_after(num_syncs: int) -> Callable[[Path], None]:
    counter: Iterator[int] = iter(range(1 << 30))

    def sync(path: Path) -> None:
        if next(counter) >= num_syncs:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    return sync
