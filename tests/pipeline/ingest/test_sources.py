"""From a folder to `sources` rows: one per entry, duplicates found by hash, takedowns kept out."""

import hashlib
import itertools
import os
from pathlib import Path

import pytest

from pipeline.engine.work import PartReport
from pipeline.ingest.config import IngestConfig
from pipeline.ingest.listing import list_inputs
from pipeline.ingest.sources import read_exclusions, rows_by_item, source_rows
from pipeline.ingest.table import ingest_table
from pipeline.ingest.worker import IngestWorker, ingest_pass
from pipeline.media.config import MediaLimits
from pipeline.media.probe import probe_media
from pipeline.media.uris import file_uri
from pipeline.storage import Store
from schemas.source import Probe, SourceRow
from schemas.status import Failure
from tests.media_files import moving_frames, texture, write_audio, write_image, write_video

CONFIG = IngestConfig(sources_per_part=3)


def ingest(pool: Path, output: Path, config: IngestConfig = CONFIG) -> list[PartReport]:
    """As the engine does, inline."""
    store = Store(str(output))
    pass_ = ingest_pass(list_inputs([str(pool)]), store, config)
    worker = IngestWorker(str(output), config)
    worker.setup()
    return [worker.process(part) for part in pass_.parts]


def sources(pool: Path, output: Path, exclude: frozenset[str] = frozenset()) -> list[SourceRow]:
    table = ingest_table(Store(str(output)), CONFIG)
    return source_rows(list_inputs([str(pool)]), rows_by_item(table.read()), exclude)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    folder.mkdir()
    video = write_video(folder / "b.mp4", moving_frames(5))
    for name in ("c.mp4", "a.mkv"):
        (folder / name).write_bytes(video.read_bytes())
    write_image(folder / "d.jpg", texture(32, 48))
    write_audio(folder / "e.mp4")
    (folder / "f.mp4").write_bytes(b"<html></html>")
    (folder / "g.mp4").touch()
    os.mkfifo(folder / "h.mp4")
    return folder


def named(rows: list[SourceRow]) -> dict[str, SourceRow]:
    return {row.source_uri.rpartition("/")[2]: row for row in rows}


def test_every_entry_has_a_row_and_the_reports_add_up(pool: Path, tmp_path: Path) -> None:
    reports = ingest(pool, tmp_path / "out")
    assert sum(r.num_ok for r in reports) == 4
    assert sum(r.num_failed for r in reports) == 3  # the pipe never gets as far as a worker
    rows = named(sources(pool, tmp_path / "out"))
    assert {name: row.error_class for name, row in rows.items()} == {
        "a.mkv": None,
        "b.mp4": None,
        "c.mp4": None,
        "d.jpg": None,
        "e.mp4": "no_video_stream",
        "f.mp4": "not_media",
        "g.mp4": "empty_file",
        "h.mp4": "not_a_file",
    }
    content = (pool / "b.mp4").read_bytes()
    assert rows["b.mp4"].sha256 == hashlib.sha256(content).hexdigest()
    assert rows["b.mp4"].num_bytes == len(content)
    assert rows["f.mp4"].sha256 == hashlib.sha256(b"<html></html>").hexdigest()
    probe = rows["d.jpg"].probe
    assert probe is not None
    assert (probe.media_kind, probe.height, probe.width) == ("image", 32, 48)


def test_exact_duplicates_name_the_first_uri(pool: Path, tmp_path: Path) -> None:
    ingest(pool, tmp_path / "out")
    rows = sources(pool, tmp_path / "out")
    assert [row.source_uri for row in rows] == sorted(row.source_uri for row in rows)
    first = file_uri(pool / "a.mkv")
    duplicates = {name: row.duplicate_of for name, row in named(rows).items() if row.duplicate_of}
    assert duplicates == {"b.mp4": first, "c.mp4": first}


def test_equal_bytes_are_opened_once(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def note(uri: str, limits: MediaLimits) -> Probe:
        opened.append(uri.rpartition("/")[2])
        return probe_media(uri, limits)

    monkeypatch.setattr("pipeline.ingest.worker.probe_media", note)
    ingest(pool, tmp_path / "out")
    assert len({"a.mkv", "b.mp4", "c.mp4"} & set(opened)) == 1


def test_a_second_run_has_nothing_to_do_until_a_file_changes(pool: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert len(ingest(pool, output)) == 3
    assert ingest(pool, output) == []
    write_image(pool / "new.png", texture(8, 8))
    (pool / "f.mp4").write_bytes((pool / "b.mp4").read_bytes())
    (pool / "c.mp4").unlink()
    assert sum(report.num_ok for report in ingest(pool, output)) == 2
    rows = named(sources(pool, output))
    assert "c.mp4" not in rows
    assert rows["f.mp4"].duplicate_of == file_uri(pool / "a.mkv")
    assert rows["new.png"].ok


def test_the_size_of_parts_changes_no_source_row(pool: Path, tmp_path: Path) -> None:
    ingest(pool, tmp_path / "one", IngestConfig(sources_per_part=1))
    ingest(pool, tmp_path / "many", IngestConfig(sources_per_part=100))
    assert sources(pool, tmp_path / "one") == sources(pool, tmp_path / "many")


def test_rows_do_not_depend_on_the_order_of_entries(pool: Path, tmp_path: Path) -> None:
    ingest(pool, tmp_path / "out")
    found = rows_by_item(ingest_table(Store(str(tmp_path / "out")), CONFIG).read())
    entries = list_inputs([str(pool)])
    wanted = source_rows(entries, found)
    for order in itertools.islice(itertools.permutations(entries), 0, 5000, 500):
        assert source_rows(order, found) == wanted


def test_takedowns_are_excluded_and_their_duplicates_move_up(pool: Path, tmp_path: Path) -> None:
    ingest(pool, tmp_path / "out")
    digest = hashlib.sha256((pool / "d.jpg").read_bytes()).hexdigest()
    takedown = tmp_path / "exclude.txt"
    takedown.write_text(f"# by request\n\n{pool}/a.mkv\n{digest.upper()}\nhttps://x/y.mp4\n")
    rows = named(sources(pool, tmp_path / "out", read_exclusions(takedown)))
    assert rows["a.mkv"].error_class == rows["d.jpg"].error_class == "excluded"
    assert rows["b.mp4"].duplicate_of is None
    assert rows["c.mp4"].duplicate_of == file_uri(pool / "b.mp4")
    whole = hashlib.sha256((pool / "b.mp4").read_bytes()).hexdigest()
    rows = named(sources(pool, tmp_path / "out", frozenset({whole})))
    assert {rows[name].error_class for name in ("a.mkv", "b.mp4", "c.mp4")} == {"excluded"}


def test_a_file_that_changes_while_it_is_read_is_not_trusted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_frames(3))
    (entry,) = list_inputs([str(path)])
    with path.open("ab") as file:
        file.write(b"more")
    worker = IngestWorker(str(tmp_path / "out"), CONFIG)
    worker.setup()
    assert worker.ingest(entry).error_class == "changed"


def test_an_entry_that_killed_its_worker_gets_a_row(pool: Path, tmp_path: Path) -> None:
    config = IngestConfig(sources_per_part=1)
    store = Store(str(tmp_path / "out"))
    pass_ = ingest_pass(list_inputs([str(pool)]), store, config)
    report = pass_.record_failure(pass_.parts[0], Failure(error_class="crashed", error="twice"))
    assert (report.num_ok, report.num_failed) == (0, 1)
    assert report.reasons == {"crashed": 1}
    rows = sources(pool, tmp_path / "out")
    assert sorted(row.error_class or "" for row in rows).count("crashed") == 1
    assert sorted(row.error_class or "" for row in rows).count("not_ingested") == 6
