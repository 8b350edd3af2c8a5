"""An exception as two short texts: one to compare, one to show."""

import traceback

from pipeline.engine.ledger import Raised


def describe_exception(error: BaseException) -> Raised:
    """The place is the innermost frame, so that the same bug looks the same for every item."""
    name = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown place"
    lines = str(error).splitlines()
    return Raised(
        signature=f"{name} at {place}",
        error=f"{name}: {lines[0] if lines else ''} ({place})",
        trace="".join(traceback.format_exception(error)),
    )
