"""Names of sources: percent-encoded file URIs that survive any bytes, and URLs left as they are."""

import os
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

_FILE_SCHEME = "file://"
_UNESCAPED = "/-._~"  # beyond letters and digits: RFC 3986 unreserved, and the separator


def file_uri(path: Path | str) -> str:
    """`file:///a/b%20c.mp4`. Bytes that are not UTF-8 are escaped as they are; nothing is lost."""
    return _FILE_SCHEME + quote_from_bytes(os.path.abspath(os.fsencode(path)), safe=_UNESCAPED)


def is_file_uri(uri: str) -> bool:
    return uri.startswith(_FILE_SCHEME)


def path_of(uri: str) -> Path:
    """The local path that a file URI names. Raises ValueError for any other URI."""
    if not is_file_uri(uri):
        raise ValueError(f"not a file URI: {uri!r}")
    location = uri.removeprefix(_FILE_SCHEME)
    host, slash, path = location.partition("/")
    if host not in ("", "localhost"):
        raise ValueError(f"file URI of another host {host!r}: {uri!r}")
    return Path(os.fsdecode(unquote_to_bytes(slash + path)))
