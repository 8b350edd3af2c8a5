"""The listing: every name with a media suffix once, whatever it is, without opening anything."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ingest.entry import ListedEntry, ListingError, bears_media_suffix
from pipeline.ingest.listing import list_inputs
from pipeline.media.uris import file_uri, path_of
from schemas.source import Provenance


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def by_name(entries: list[ListedEntry]) -> dict[str, str | None]:
    """File name -> error class."""
    return {
        path_of(e.source_uri).name: e.failure.error_class if e.failure else None for e in entries
    }


def test_every_media_name_has_one_entry(tmp_path: Path) -> None:
    pool, outside = tmp_path / "pool", touch(tmp_path / "outside.mp4")
    touch(pool / "good.mp4")
    touch(pool / ".hidden.MP4")
    touch(pool / ".mp4")
    touch(pool / "deep" / "er" / "b.webm")
    touch(pool / "notes.txt")
    touch(pool / "mp4")
    touch(pool / "folder.mp4" / "inside.jpg")
    os.mkfifo(pool / "pipe.mp4")
    (pool / "inside_link.mp4").symlink_to("good.mp4")
    (pool / "outside_link.mp4").symlink_to(outside)
    (pool / "etc_link.mp4").symlink_to("/etc/passwd")
    (pool / "loop_a.mp4").symlink_to("loop_b.mp4")
    (pool / "loop_b.mp4").symlink_to("loop_a.mp4")
    (pool / "up").symlink_to("..")
    (pool / "self.mp4").symlink_to(".")
    (pool / "dangling.mp4").symlink_to("nothing.mp4")
    short = socket.socket(socket.AF_UNIX)
    before = Path.cwd()
    os.chdir(pool)  # socket names must be short
    try:
        short.bind("socket.mp4")
    finally:
        os.chdir(before)
        short.close()
    entries = list_inputs([str(pool)])
    assert by_name(entries) == {
        "good.mp4": None,
        ".hidden.MP4": None,
        ".mp4": None,
        "b.webm": None,
        "folder.mp4": "not_a_file",
        "inside.jpg": None,
        "pipe.mp4": "not_a_file",
        "socket.mp4": "not_a_file",
        "self.mp4": "not_a_file",
        "inside_link.mp4": None,
        "outside_link.mp4": "link_outside_input",
        "etc_link.mp4": "link_outside_input",
        "loop_a.mp4": "link_loop",
        "loop_b.mp4": "link_loop",
        "dangling.mp4": "link_broken",
    }
    uris = [entry.source_uri for entry in entries]
    assert uris == sorted(uris)


def test_a_pool_behind_a_link_is_its_own_inside(tmp_path: Path) -> None:
    touch(tmp_path / "real" / "a.mp4")
    (tmp_path / "real" / "b.mp4").symlink_to("a.mp4")
    (tmp_path / "pool").symlink_to("real")
    assert by_name(list_inputs([str(tmp_path / "pool")])) == {"a.mp4": None, "b.mp4": None}


def test_odd_names_come_back_byte_for_byte(tmp_path: Path) -> None:
    names = [b"a b.mp4", b"new\nline.mp4", "é影.mp4".encode(), b"bad\xff.mp4", b"-x.mp4"]
    names += [b"$(rm).mp4", b"a%20b.mp4", b"q?x#y.mp4", b"z" * 246 + b".mp4"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    entries = list_inputs([str(tmp_path)])
    assert {os.fsencode(path_of(e.source_uri).name) for e in entries} == set(names)
    assert all(e.source_uri.isascii() and "\n" not in e.source_uri for e in entries)


def test_the_mark_changes_with_size_and_time(tmp_path: Path) -> None:
    path = touch(tmp_path / "a.mp4")
    os.utime(path, ns=(0, 1_000_000_001))
    first = list_inputs([str(path)])[0]
    assert list_inputs([str(tmp_path)])[0] == first
    os.utime(path, ns=(0, 1_000_000_002))
    later = list_inputs([str(path)])[0]
    assert later.listing_id != first.listing_id
    assert later.item_id != first.item_id
    touch(path, b"longer")
    os.utime(path, ns=(0, 1_000_000_001))
    assert list_inputs([str(path)])[0].listing_id != first.listing_id


def test_lists_carry_what_is_known(tmp_path: Path) -> None:
    a, b = touch(tmp_path / "media" / "a.mp4"), touch(tmp_path / "media" / "b c.mp4")
    rows: list[dict[str, Any]] = [
        {"path": "media/a.mp4", "licence": "CC-BY-4.0", "origin_url": "https://x/a", "tags": ["t"]},
        {"source_uri": file_uri(b), "license": "CC0-1.0", "other": 3},
        {"uri": str(tmp_path / "media" / "none.mp4")},
    ]
    jsonl = tmp_path / "list.jsonl"
    jsonl.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    keys = ("path", "source_uri", "uri", "licence", "license", "origin_url", "tags")
    parquet = tmp_path / "list.parquet"
    pq.write_table(pa.Table.from_pylist([{k: r.get(k) for k in keys} for r in rows]), parquet)
    for location in (jsonl, parquet):
        entries = {e.source_uri: e for e in list_inputs([str(location)])}
        assert entries[file_uri(a)].provenance == Provenance(
            licence="CC-BY-4.0", origin_url="https://x/a", tags=("t",)
        )
        assert entries[file_uri(b)].provenance.licence == "CC0-1.0"
        missing = entries[file_uri(tmp_path / "media" / "none.mp4")]
        assert missing.failure is not None
        assert missing.failure.error_class == "not_found"


def test_text_lists_hold_names_as_bytes(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd \xff.mp4"))
    touch(odd)
    touch(tmp_path / "plain.mp4")
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"plain.mp4\r\n\n" + os.fsencode(odd) + b"\n")
    assert set(by_name(list_inputs([str(listed)]))) == {odd.name, "plain.mp4"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"list.jsonl:1: not JSON"),
        ("[1]", "needs an object"),
        ('{"path": "a.mp4"}\n{"licence": "x"}', r"list.jsonl:2: needs a text in one of"),
        ('{"path": "a.mp4", "tags": "x"}', "tags must be a list"),
        ('{"path": "a.mp4", "licence": 3}', "licence"),
        ('{"path": "file://host/a.mp4"}', "another host"),
    ],
)
def test_a_wrong_list_names_its_line(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(content)
    with pytest.raises(ListingError, match=message):
        list_inputs([str(path)])


def test_an_entry_of_two_inputs_counts_once_and_keeps_its_provenance(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    listed = tmp_path / "list.jsonl"
    listed.write_text('{"path": "a.mp4", "licence": "CC0-1.0"}')
    for order in ([str(tmp_path), str(listed)], [str(listed), str(tmp_path)]):
        (entry,) = list_inputs(order)
        assert entry.provenance.licence == "CC0-1.0"


def test_remote_folders_objects_and_lists(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    try:
        for name in ("a b.mp4", "deep/c.jpg", "notes.md"):
            memory.pipe(f"/listed/{name}", b"12345")
        memory.pipe("/listed/list.jsonl", b'{"path": "a b.mp4", "licence": "CC0-1.0"}\n')
        entries = list_inputs(["memory://listed"])
        names = [e.source_uri.partition("listed/")[2] for e in entries]
        assert names == ["a b.mp4", "deep/c.jpg"]
        assert {e.num_bytes for e in entries} == {5}
        (one,) = list_inputs(["memory://listed/a b.mp4"])
        assert one == entries[0]
        (named,) = list_inputs(["memory://listed/list.jsonl"])
        assert named.provenance.licence == "CC0-1.0"
        with pytest.raises(ListingError, match="does not exist"):
            list_inputs(["memory://nothing/here"])
    finally:
        memory.rm("/listed", recursive=True)


def test_absent_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ListingError, match="does not exist"):
        list_inputs([str(tmp_path / "none")])
    with pytest.raises(ListingError, match="cannot be listed"):
        list_inputs(["nosuchprotocol://a/b"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.mp4", True), (".mp4", True), ("a.JPG", True), ("mp4", False), ("a.mp4.part", False)],
)
def test_suffixes(name: str, expected: bool) -> None:
    assert bears_media_suffix(name) == expected
