"""The pool in an object store, against a local S3 server."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from pipeline.ingest.config import IngestConfig
from pipeline.ingest.listing import list_inputs
from pipeline.ingest.sources import rows_by_item, source_rows
from pipeline.ingest.table import ingest_table
from pipeline.ingest.worker import IngestWorker, ingest_pass
from pipeline.media.fetch import clear_fetched
from pipeline.storage import Store
from tests.media_files import moving_frames, write_video

moto_server = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket; the endpoint is found through the environment, as in production."""
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    fsspec.filesystem("s3").mkdir("pool")
    yield "s3://pool"
    clear_fetched()
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


# The clients and the test server warn about their own futures and sockets.
@pytest.mark.filterwarnings("ignore")
def test_a_pool_and_its_tables_in_an_object_store(bucket: str, tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.mp4", moving_frames(5)).read_bytes()
    fs = fsspec.filesystem("s3")
    for key in ("in/a b.mp4", "in/deep/ü.mp4"):
        fs.pipe(f"pool/{key}", content)
    fs.pipe("pool/in/bad.mp4", b"<html></html>")
    fs.pipe("pool/in/readme.md", b"no medium")
    entries = list_inputs([f"{bucket}/in"])
    names = ["a b.mp4", "bad.mp4", "deep/ü.mp4"]
    assert [e.source_uri for e in entries] == [f"{bucket}/in/{name}" for name in names]
    assert all(len(e.listing_id.partition(":")[2]) >= 32 for e in entries)  # size:ETag

    store, config = Store(f"{bucket}/out"), IngestConfig()
    worker = IngestWorker(store.location, config)
    worker.setup()
    for part in ingest_pass(entries, store, config).parts:
        worker.process(part)
    rows = source_rows(entries, rows_by_item(ingest_table(store, config).read()))
    assert [row.error_class for row in rows] == [None, "not_media", None]
    assert rows[2].duplicate_of == rows[0].source_uri
    assert ingest_pass(entries, store, config).parts == []

    fs.pipe("pool/in/bad.mp4", content + b"\0\0\0\x08free")
    changed = list_inputs([f"{bucket}/in"])
    assert [a.item_id == b.item_id for a, b in zip(entries, changed, strict=True)] == [
        True,
        False,
        True,
    ]
