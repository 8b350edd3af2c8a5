"""A local path for any source URI: file URIs as they are, remote objects through a small cache."""

import atexit
import logging
import os
import stat
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.media.sniff import HEAD_BYTES
from pipeline.media.uris import is_file_uri, path_of
from schemas.object_store import access_errors

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 4 << 20
_MAX_CACHED_FILES = 2  # the source in work and the one before it; clips of a source come in a row


class _FetchCache:
    """Temporary copies of remote objects in this process, removed when others take their place."""

    def __init__(self) -> None:
        self._paths: OrderedDict[str, Path] = OrderedDict()
        self._in_use: dict[str, int] = {}

    @contextmanager
    def path(self, uri: str, limits: MediaLimits) -> Iterator[Path]:
        if uri not in self._paths:
            self._paths[uri] = _fetch(uri, limits)
        self._paths.move_to_end(uri)
        self._in_use[uri] = self._in_use.get(uri, 0) + 1
        self._shrink(_MAX_CACHED_FILES)
        try:
            yield self._paths[uri]
        finally:
            self._in_use[uri] -= 1
            self._shrink(_MAX_CACHED_FILES)

    def clear(self) -> None:
        self._in_use.clear()
        self._shrink(0)

    def _shrink(self, max_files: int) -> None:
        idle = [uri for uri in self._paths if not self._in_use.get(uri)]
        for uri in idle[: max(0, len(self._paths) - max_files)]:
            self._paths.pop(uri).unlink(missing_ok=True)
            self._in_use.pop(uri, None)


_CACHE = _FetchCache()
atexit.register(_CACHE.clear)


@contextmanager
def local_path(uri: str, limits: MediaLimits) -> Iterator[Path]:
    """Where the source's bytes can be read. Never blocks on a pipe. Raises MediaError."""
    if is_file_uri(uri):
        path = path_of(uri)
        check_regular(path, uri, limits)
        yield path
    else:
        with _CACHE.path(uri, limits) as path:
            yield path


def clear_fetched() -> None:
    """Remove this process's temporary copies now rather than at exit."""
    _CACHE.clear()


def check_regular(path: Path, uri: str, limits: MediaLimits) -> None:
    """Raises MediaError `not_found`, `not_a_file`, `unreadable` or `too_many_bytes`."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaError("not_found", f"{uri}: does not exist") from error
    except OSError as error:
        raise MediaError("unreadable", f"{uri}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise MediaError("not_a_file", f"{uri}: {kind_of(status.st_mode)}, not a file")
    if status.st_size > limits.max_num_bytes:
        raise MediaError(
            "too_many_bytes", f"{uri}: {status.st_size} bytes, limit {limits.max_num_bytes}"
        )


def kind_of(mode: int) -> str:
    """A word for what a directory entry is."""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a block device",
        stat.S_IFCHR: "a character device",
        stat.S_IFLNK: "a link",
        stat.S_IFREG: "a file",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


def read_head(path: Path, uri: str) -> bytes:
    """The first bytes, for `sniff`. Raises MediaError `unreadable`."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise MediaError("unreadable", f"{uri}: {error.strerror}") from error


def _fetch(uri: str, limits: MediaLimits) -> Path:
    descriptor, name = tempfile.mkstemp(prefix="reelsieve-", suffix=".media")
    path = Path(name)
    num_bytes = 0
    try:
        with os.fdopen(descriptor, "wb") as target, fsspec.open(uri, "rb") as remote:
            while block := remote.read(_BLOCK_BYTES):
                num_bytes += len(block)
                if num_bytes > limits.max_num_bytes:
                    raise MediaError(
                        "too_many_bytes", f"{uri}: over the limit of {limits.max_num_bytes} bytes"
                    )
                target.write(block)
    except FileNotFoundError as error:
        path.unlink(missing_ok=True)
        raise MediaError("not_found", f"{uri}: does not exist") from error
    except access_errors() as error:
        path.unlink(missing_ok=True)
        raise MediaError("fetch_failed", f"{uri}: {error}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    logger.debug("fetched %s (%d bytes)", uri, num_bytes)
    return path
