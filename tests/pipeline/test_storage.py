"""Storage: a write is whole or absent, on a disk and on an object store."""

import errno
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.storage import StorageError, Store, is_url


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.name}")


def test_what_is_written_is_read_listed_and_removed(store: Store) -> None:
    assert store.list("a") == []
    store.write_bytes("a/b c.bin", b"one")
    store.write_bytes("a/b c.bin", b"two")
    assert store.read_bytes("a/b c.bin") == b"two"
    assert (store.list("a"), store.list("")) == (["b c.bin"], ["a"])
    assert store.size("a/b c.bin") == 3
    assert store.sha256("a/b c.bin") == hashlib.sha256(b"two").hexdigest()
    store.remove("a/b c.bin")
    store.remove("a/b c.bin")
    assert not store.exists("a/b c.bin")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(store: Store) -> None:
    store.write_bytes("a/x", b"old")

    def fail() -> None:
        with store.replacing("a/x") as temporary:
            temporary.write_bytes(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.read_bytes("a/x") == b"old"
    if store.is_local:
        assert [path.name for path in Path(store.full("a")).iterdir()] == ["x"]


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("x", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="/x: no space left; free some and run"):
        store.write_bytes("x", b"new")
    monkeypatch.undo()
    assert store.read_bytes("x") == b"old"
    assert store.list("") == ["x"]


def test_a_write_over_the_size_limit_of_the_system_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pipeline.storage import Store, StorageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: Store(sys.argv[1]).write_bytes('x', bytes(5000))\n"
        "except StorageError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "File too large" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_killed_write_is_invisible(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pipeline.storage import Store\n"
        "with Store(sys.argv[1]).replacing('x') as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    store = Store(str(tmp_path))
    assert store.list("") == []
    assert not store.exists("x")


def test_a_store_travels_to_workers(store: Store) -> None:
    store.write_bytes("x", b"1")
    assert pickle.loads(pickle.dumps(store)).read_bytes("x") == b"1"


@pytest.mark.parametrize(
    ("location", "expected"),
    [("s3://bucket/x", True), ("a:b.mp4", False), ("/a/b", False), ("file:///a", True)],
)
def test_a_url_has_a_scheme_and_two_slashes(location: str, expected: bool) -> None:
    assert is_url(location) is expected


def test_a_file_url_is_a_local_folder(tmp_path: Path) -> None:
    Store(f"file://{tmp_path}/a%20b").write_bytes("x", b"1")
    assert (tmp_path / "a b" / "x").read_bytes() == b"1"


@pytest.mark.filterwarnings("ignore")  # of the client's own modules
def test_an_object_store_that_is_not_there_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    store = Store("s3://pool/run")
    line = r"s3://pool/run/a: Could not connect .* check the endpoint"
    with pytest.raises(StorageError, match=line):
        store.exists("a")
    with pytest.raises(StorageError, match=line):
        store.read_bytes("a")
    with pytest.raises(StorageError, match=line):
        store.write_bytes("a", b"1")
    s3fs.S3FileSystem.clear_instance_cache()
