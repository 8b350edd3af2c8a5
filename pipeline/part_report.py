"""What a finished part holds, for passes that write one table with a status row per item."""

from collections import Counter

from pipeline.engine.work import Part, PartReport
from pipeline.tables import Table


def find_part_report(table: Table, part: Part) -> PartReport | None:
    """None when the part is not on disk."""
    if not table.is_done(part.key):
        return None
    classes = table.read(["error_class"], keys=[part.key])["error_class"].to_pylist()
    reasons = Counter(found for found in classes if found is not None)
    num_failed = reasons.total()
    seconds = float(table.marker(part.key)["seconds"])
    return PartReport(len(classes) - num_failed, num_failed, seconds, dict(reasons))
