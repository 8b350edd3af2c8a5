"""Figures for Ray's own metrics endpoint (Prometheus names start with `ray_reelsieve_`)."""

import time

from ray.util.metrics import Gauge

from pipeline.engine.ledger import Ledger

_INTERVAL_S = 2.0
_NAMES = {
    "items": "Items of the pass",
    "items_done": "Items that have a row",
    "items_failed": "Items whose row says why they failed",
    "retries": "Tries beyond the first",
    "parts_in_flight": "Parts that workers hold or that wait between two workers",
}


class Metrics:
    """Gauges by pass. The tag has few values: passes, never items."""

    def __init__(self) -> None:
        self._gauges = {
            name: Gauge(f"reelsieve_{name}", description=text, tag_keys=("pass",))
            for name, text in _NAMES.items()
        }
        self._updated_s = 0.0

    def update(self, pass_name: str, ledger: Ledger, num_in_flight: int) -> None:
        now = time.monotonic()
        if now - self._updated_s < _INTERVAL_S and ledger.num_done < ledger.num_items:
            return
        self._updated_s = now
        values = {
            "items": ledger.num_items,
            "items_done": ledger.num_done,
            "items_failed": ledger.num_failed,
            "retries": ledger.num_retries,
            "parts_in_flight": num_in_flight,
        }
        for name, value in values.items():
            self._gauges[name].set(value, tags={"pass": pass_name})
