"""Reads whole files and ranges of files, local or on any fsspec file system."""

import hashlib
import os
import threading
from collections import OrderedDict
from typing import Any

import fsspec

from modeling.data.errors import DataError
from schemas.object_store import access_errors, client_errors

_BLOCK_BYTES = 1 << 20
_NO_FILE = "restore it, or give a manifest that does not name it"


def is_url(location: str) -> bool:
    """`s3://bucket/x` is a URL; plain paths are not."""
    return "://" in location


def beside(manifest: str, path: str) -> str:
    """The place of a file that a manifest names relative to itself."""
    folder, slash, _ = manifest.rpartition("/")
    return f"{folder}{slash}{path}"


def read_file(location: str) -> bytes:
    """The whole file. Raises DataError."""
    try:
        filesystem, path = fsspec.url_to_fs(location)
        data: bytes = filesystem.cat_file(path)
    except access_errors() as error:
        raise unreadable(location, error) from error
    return data


def file_size(location: str) -> int:
    """In bytes. Raises DataError."""
    try:
        if not is_url(location):
            return os.stat(location).st_size
        filesystem, path = fsspec.url_to_fs(location)
        return int(filesystem.size(path))
    except access_errors() as error:
        raise unreadable(location, error) from error


def file_sha256(location: str) -> str:
    """Hex digest, read in blocks. Raises DataError."""
    digest = hashlib.sha256()
    try:
        with fsspec.open(location, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except access_errors() as error:
        raise unreadable(location, error) from error
    return digest.hexdigest()


def unreadable(location: str, error: Exception) -> DataError:
    """One line for a file that is not there or cannot be read."""
    if isinstance(error, FileNotFoundError):
        return DataError(location, "there is no such file", _NO_FILE)
    why = getattr(error, "strerror", None) or str(error)
    remedy = "check the path and the access rights"
    if isinstance(error, client_errors()):
        remedy = "check the endpoint, the credentials and the bucket"
    return DataError(location, f"cannot be read ({why})", remedy)


class RangeReader:
    """Bytes of files by offset, from any number of threads.

    Local files stay open, the least recently used closed first; remote ones are asked for the
    range alone.
    """

    def __init__(self, max_open_files: int = 128) -> None:
        self._max_open_files = max_open_files
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _OpenFile] = OrderedDict()
        self._remote: dict[str, tuple[Any, str]] = {}

    def read(self, location: str, offset: int, size: int) -> bytes:
        """Exactly `size` bytes. Raises DataError, also for a file that ends before."""
        try:
            data = self._fetch(location, offset, size)
        except access_errors() as error:
            raise unreadable(location, error) from error
        if len(data) != size:
            raise DataError(
                location,
                f"ends before byte {offset + size}, where the index has a sample",
                "the file was cut short; write its shard again",
            )
        return data

    def close(self) -> None:
        with self._lock:
            self._files.clear()

    def _fetch(self, location: str, offset: int, size: int) -> bytes:
        if not is_url(location):
            return self._open(location).read(offset, size)
        with self._lock:
            place = self._remote.get(location)
            if place is None:
                place = self._remote[location] = fsspec.url_to_fs(location)
        filesystem, path = place
        data: bytes = filesystem.cat_file(path, start=offset, end=offset + size)
        return data

    def _open(self, path: str) -> "_OpenFile":
        with self._lock:
            file = self._files.get(path)
            if file is None:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                file = self._files[path] = _OpenFile(descriptor)
            self._files.move_to_end(path)
            while len(self._files) > self._max_open_files:
                self._files.popitem(last=False)
            return file


class _OpenFile:
    """A descriptor that closes with its last user."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(self._descriptor, size, offset)):
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __del__(self) -> None:
        os.close(self._descriptor)
