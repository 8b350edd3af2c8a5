"""The `Range` header of RFC 9110, section 14: one range of bytes, as players ask for it."""

import re

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class UnsatisfiableRangeError(ValueError):
    """The range begins after the end."""


def parse_range(header: str | None, num_bytes: int) -> tuple[int, int] | None:
    """[start, end) of the wanted bytes; None where all are wanted, or more than one range.

    Raises UnsatisfiableRangeError.
    """
    match = None if header is None else _RANGE.fullmatch(header.strip())
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if first == "":
        wanted = int(last)
        if wanted == 0:
            raise UnsatisfiableRangeError(header)
        return max(0, num_bytes - wanted), num_bytes
    start = int(first)
    end = num_bytes if last == "" else min(int(last) + 1, num_bytes)
    if start >= num_bytes:
        raise UnsatisfiableRangeError(header)
    return None if end <= start else (start, end)
