"""Where relative paths lie.

A Ray job runs in Ray's own copy of the working directory, which is deleted later: a relative
output written there would be lost. So relative paths count from $REELSIEVE_HOME where it is set
(`make demo` sets it), else from the current directory, and a job that would write into Ray's copy
is refused.
"""

import os
from pathlib import Path

from pipeline.storage import is_url

HOME_VARIABLE = "REELSIEVE_HOME"


class LostOutputError(ValueError):
    """The output would lie in a folder that Ray deletes."""


def resolve(location: str) -> str:
    """An absolute path, or the URL as it is. Raises LostOutputError inside Ray's copy."""
    if is_url(location) or Path(location).is_absolute():
        return location
    home = os.environ.get(HOME_VARIABLE)
    base = Path(home) if home else Path.cwd()
    if not home and "runtime_resources" in base.parts:
        raise LostOutputError(
            f"{location}: this job runs in Ray's copy of the working directory, where a relative "
            f"path is lost; give an absolute path or a URL, or set {HOME_VARIABLE}"
        )
    return str(base / location)
