"""Where output lies: one small face over a local folder and any fsspec URL (s3://...).

A write is whole or absent. Local files go to a temporary name, are synced and renamed; object
stores make a put visible only when it is complete.
"""

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import fsspec

from schemas.object_store import client_errors

TEMPORARY_SUFFIX = ".tmp"
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class StorageError(Exception):
    """An output that cannot be read or written: one line with the place and the remedy."""


def is_url(location: str) -> bool:
    """`s3://bucket/x` is a URL; `C:x`, `a:b.mp4` and plain paths are not."""
    return "://" in location


class Store:
    """A folder, local or remote. Paths are relative, with forward slashes."""

    def __init__(self, location: str) -> None:
        if location.startswith("file://"):
            location = unquote(urlsplit(location).path)
        self.location = location.rstrip("/") if is_url(location) else str(Path(location).absolute())
        self.is_local = not is_url(location)
        self._fs: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location, "is_local": self.is_local, "_fs": None}

    @property
    def fs(self) -> Any:
        """The fsspec file system, opened on first use (so that a Store travels to workers)."""
        if self._fs is None:
            self._fs, _ = fsspec.url_to_fs(self.location)
        return self._fs

    def full(self, path: str) -> str:
        return f"{self.location}/{path}" if path else self.location

    def exists(self, path: str) -> bool:
        with self._named(path):
            self.fs.invalidate_cache()  # others write here too
            return bool(self.fs.exists(self.full(path)))

    def read_bytes(self, path: str) -> bytes:
        with self._named(path):
            data: bytes = self.fs.cat_file(self.full(path))
        return data

    @contextmanager
    def open_read(self, path: str) -> Iterator[IO[bytes]]:
        with self._named(path), self.fs.open(self.full(path), "rb") as file:
            yield file

    def size(self, path: str) -> int:
        with self._named(path):
            return int(self.fs.size(self.full(path)))

    def sha256(self, path: str) -> str:
        """Hex digest of the content, read in blocks."""
        digest = hashlib.sha256()
        with self.open_read(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def list(self, path: str) -> list[str]:
        """Names directly inside a folder, sorted, without temporary files. Absent: empty."""
        if not self.exists(path):
            return []
        with self._named(path):
            found = self.fs.ls(self.full(path), False)
        names = (str(p).rstrip("/").rsplit("/", 1)[-1] for p in found)
        return sorted(name for name in names if not name.endswith(TEMPORARY_SUFFIX))

    def leftovers(self) -> tuple[str, ...]:
        """Temporary files that killed runs left anywhere below, sorted. None on object stores."""
        if not self.is_local:
            return ()
        root = Path(self.location)
        found = root.rglob(f".*{TEMPORARY_SUFFIX}")
        return tuple(sorted(str(path.relative_to(root)) for path in found if path.is_file()))

    def write_bytes(self, path: str, data: bytes) -> None:
        """Replace or create the file, whole or not at all. Raises StorageError."""
        with self.replacing(path) as temporary:
            temporary.write_bytes(data)

    @contextmanager
    def replacing(self, path: str) -> Iterator[Path]:
        """A local temporary path to fill; on success it becomes `path`, on error it is removed."""
        target = Path(self.full(path)) if self.is_local else None
        folder = target.parent if target else Path(os.environ.get("TMPDIR", "/tmp"))
        temporary = folder / f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
        is_inside = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            is_inside = True
            yield temporary
            is_inside = False
            if target is not None:
                _sync(temporary)
                os.replace(temporary, target)
                _sync(folder)  # a marker must not outlive a power cut that its part does not
            else:
                with self._named(path):
                    self.fs.put_file(str(temporary), self.full(path))
        except OSError as error:
            if is_inside and error.errno not in _DISK_ERRORS:
                raise  # of what the block reads or encodes, not of this file
            raise StorageError(explain(error, self.full(path))) from error
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        """Remove a file; an absent one is fine."""
        try:
            with self._named(path):
                self.fs.rm_file(self.full(path))
        except FileNotFoundError:
            return

    @contextmanager
    def _named(self, path: str) -> Iterator[None]:
        """Turns what an object store's client raises into StorageError; OSError stays."""
        try:
            yield
        except client_errors() as error:
            raise StorageError(
                f"{self.full(path)}: {error}; check the endpoint, the credentials and the bucket"
            ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def explain(error: OSError, place: str) -> str:
    """One line with the place and the remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{place}: no space left; free some and run the same command again"
    if error.errno == errno.EIO:
        return f"{place}: the disk fails ({error.strerror}); mend it and run the same command again"
    why = error.strerror or str(error)
    return f"{place}: not writable ({why}); choose another --output"
