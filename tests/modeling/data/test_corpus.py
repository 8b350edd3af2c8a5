import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling.data.corpus import ShardCorpus, Verify
from modeling.data.errors import DataError
from schemas.tier import Bucket
from tests.modeling.data.shards import edit_manifest, key_of, write_shards

COUNTS = {"f001_32x32": 5, "f005_32x48": 3}


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    return write_shards(tmp_path / "shards", COUNTS)


def test_rows_are_those_of_the_shards(manifest: str) -> None:
    corpus = ShardCorpus.open([manifest], verify="full")
    assert [corpus.key(index) for index in range(len(corpus))] == [key_of(n) for n in range(8)]
    assert corpus.buckets == tuple(Bucket.from_name(name) for name in COUNTS)
    assert corpus.bucket_N.tolist() == [0] * 5 + [1] * 3
    image, video = corpus.place(4), corpus.place(5)
    assert (image.fps, video.fps) == (None, 24.0)
    assert video.bucket.name == "f005_32x48"
    with Path(video.shard).open("rb") as file:
        file.seek(video.json_offset)
        assert json.loads(file.read(video.json_size))["clip_id"] == video.key


def test_several_manifests_with_weights(manifest: str, tmp_path: Path) -> None:
    other = write_shards(tmp_path / "other", {"f005_32x48": 2}, first_number=100)
    corpus = ShardCorpus.open([manifest, other], [1, 3])
    assert len(corpus) == 10
    assert corpus.weight_N.tolist() == [1] * 8 + [3] * 2
    assert np.unique(corpus.bucket_N).tolist() == [0, 1]
    assert corpus.key(9) == key_of(101)
    assert corpus.manifest_hash != ShardCorpus.open([manifest, other]).manifest_hash


def test_the_hash_is_of_the_content_not_of_the_place(manifest: str, tmp_path: Path) -> None:
    again = write_shards(tmp_path / "again", COUNTS)
    other = write_shards(tmp_path / "other", COUNTS, first_number=1)
    first = ShardCorpus.open([manifest]).manifest_hash
    assert ShardCorpus.open([again]).manifest_hash == first
    assert ShardCorpus.open([other]).manifest_hash != first


def test_checked_indexes_are_read_once(manifest: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = ShardCorpus.open([manifest], cache=cache)
    for index in Path(manifest).parent.rglob("*.parquet"):
        index.unlink()
    again = ShardCorpus.open([manifest], cache=cache)
    assert [again.place(n) for n in range(8)] == [first.place(n) for n in range(8)]
    assert again.manifest_hash == first.manifest_hash
    [kept] = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"index.parquet: there is no such file"):
        ShardCorpus.open([manifest], cache=cache)


def test_a_cache_does_not_hide_a_shard_that_is_gone(manifest: str, tmp_path: Path) -> None:
    ShardCorpus.open([manifest], cache=tmp_path / "cache")
    first_of(manifest, "*.tar").unlink()
    with pytest.raises(DataError, match=r"\.tar: there is no such file"):
        ShardCorpus.open([manifest], cache=tmp_path / "cache")


def first_of(manifest: str, pattern: str) -> Path:
    return sorted(Path(manifest).parent.rglob(pattern))[0]


def edit_index(manifest: str, edit: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite the first index and its hash in the manifest, as a wrong writer would."""
    path = first_of(manifest, "*.parquet")
    pq.write_table(edit(pq.read_table(path)), path)
    text = json.loads(Path(manifest).read_text())
    text["shards"][0]["index_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    Path(manifest).write_text(json.dumps(text))


def change_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def totals(manifest: str, **changes: int) -> dict[str, float]:
    return {**json.loads(Path(manifest).read_text())["totals"], **changes}


def column(name: str, values: list[int] | list[str]) -> Callable[[pa.Table], pa.Table]:
    def edit(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, pa.array(values))

    return edit


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda m: Path(m).unlink(), "manifest.json: there is no such file"),
        (lambda m: Path(m).write_text("{"), "not a shard manifest of this version"),
        (lambda m: edit_manifest(m, schema_version=2), r"this version \(schema_version"),
        (lambda m: edit_manifest(m, totals=totals(m, num_frames=9)), "num_frames 9, the shards 20"),
        (lambda m: edit_manifest(m, shards=[]), "names no samples; choose a tier"),
        (lambda m: first_of(m, "*.tar").unlink(), r"\.tar: there is no such file; restore it"),
        (lambda m: first_of(m, "*.tar").write_bytes(b""), "0 bytes, the manifest says"),
        (lambda m: first_of(m, "*.parquet").unlink(), "index.parquet: there is no such file"),
        (lambda m: change_byte(first_of(m, "*.parquet")), "index.parquet: its sha256 is"),
        (lambda m: edit_index(m, lambda t: t.slice(1)), "3 samples, the manifest says 4"),
        (lambda m: edit_index(m, lambda t: t.drop(["weight"])), "has no column weight"),
        (
            lambda m: edit_index(m, column("height", [32, 32, 64, 32])),
            "another height in a shard of f001_32x32",
        ),
        (
            lambda m: edit_index(m, column("media_offset", [0, 512, 1024, 10**9])),
            "a media member lies outside the shard",
        ),
    ],
)
def test_wrong_shards_are_refused_in_one_line(
    manifest: str, spoil: Callable[[str], None], line: str
) -> None:
    spoil(manifest)
    with pytest.raises(DataError, match=line) as error:
        ShardCorpus.open([manifest])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("verify", "is_seen"), [("index", False), ("full", True)])
def test_full_verification_reads_the_shards(manifest: str, verify: Verify, is_seen: bool) -> None:
    change_byte(first_of(manifest, "*.tar"))
    if not is_seen:
        ShardCorpus.open([manifest], verify=verify)
        return
    with pytest.raises(DataError, match=r"its sha256 is .*, the manifest says"):
        ShardCorpus.open([manifest], verify=verify)


def test_the_same_key_twice_is_refused(manifest: str) -> None:
    edit_index(manifest, column("key", [key_of(n) for n in (0, 1, 2, 2)]))
    with pytest.raises(DataError, match="1 keys occur more than once"):
        ShardCorpus.open([manifest])


@pytest.mark.parametrize(
    ("manifests", "weights", "line"),
    [
        ([], None, "no manifest is given"),
        (["a", "b"], [1.0], "1 weights for 2 manifests"),
        (["a"], [-1.0], "give positive numbers"),
        (["a"], [float("nan")], "give positive numbers"),
        (["no/such/manifest.json"], None, "there is no such file"),
        (["nothing://a/manifest.json"], None, "cannot be read"),
        (["."], None, "is a folder; give the manifest.json inside it"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    manifests: list[str], weights: list[float] | None, line: str
) -> None:
    with pytest.raises(DataError, match=line):
        ShardCorpus.open(manifests, weights)
