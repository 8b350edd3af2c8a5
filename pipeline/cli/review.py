"""The commands around human approval: serve the desk, carry judgements in and out, the report."""

import logging
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pipeline.config import PipelineConfig, load_config
from pipeline.config_file import validate
from pipeline.report.make import make_report
from pipeline.review.agreement import agreements
from pipeline.review.errors import ReviewError
from pipeline.review.exchange import export_file, import_file
from pipeline.review.log import JudgementLog
from pipeline.run_record import RUN_FILE, RunRecord, read_run_record
from pipeline.storage import Store
from schemas.tier import TierName

logger = logging.getLogger(__name__)

REPORT_FILE = "report/report.html"
_SECTIONS = ("media", "tiers", "caption", "review")  # of the config, that looking needs


def serve_desk(
    store: Store,
    tier: TierName,
    *,
    host: str,
    port: int,
    config: Path | None,
    overrides: Sequence[str],
    console: Console,
) -> None:
    """Serve until interrupted. Raises ReviewError, RunRecordError, StorageError."""
    try:
        import uvicorn

        from pipeline.review.access import Gate, token_for
        from pipeline.review.desk import Desk
        from pipeline.review.server import build_app
    except ImportError as error:
        raise ReviewError(
            f"{error}; install the page's packages: pip install '.[review]'"
        ) from error
    record = read_run_record(store)
    settings = _settings(record, config, overrides)
    desk = Desk.open(store, record.tables, settings, tier)
    report = _KeptReport(store, settings)
    token = token_for(host)
    listener = _listen(host, port)
    with listener:
        shown = f"[{host}]" if ":" in host else host
        query = "" if token is None else f"?token={token}"
        address = f"http://{shown}:{listener.getsockname()[1]}/{query}"
        console.print(f"{tier}: {len(desk.candidates)} clips", markup=False)
        console.print(address, markup=False, highlight=False, soft_wrap=True)
        app = Gate(build_app(desk, report.read), token)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, ws="none", lifespan="off")
        )
        server.run(sockets=[listener])


def export_judgements(store: Store, path: Path, console: Console) -> None:
    judgements = JudgementLog(store).read()
    export_file(judgements, path)
    console.print(f"{len(judgements)} judgements written: {path}", markup=False, soft_wrap=True)


def import_judgements(store: Store, path: Path, console: Console) -> None:
    num_found, num_new = import_file(path, JudgementLog(store))
    console.print(f"{num_found} judgements in {path}, {num_new} of them new", markup=False)


def compact_judgements(store: Store, console: Console) -> None:
    console.print(f"{JudgementLog(store).compact()} judgements in one file", markup=False)


def show_agreement(store: Store, console: Console) -> None:
    """Cohen's kappa of each pair of reviewers, by question."""
    found = agreements(JudgementLog(store).read())
    if not found:
        console.print("no two reviewers have judged a clip in common")
    for one in found:
        kappa = "undefined" if one.kappa is None else f"{one.kappa:.2f}"
        console.print(
            f"{one.question}: {' and '.join(one.reviewers)}: kappa {kappa}, "
            f"equal on {one.observed:.0%} of {one.num_clips} clips",
            markup=False,
            highlight=False,
        )


def write_report(
    store: Store,
    html: Path | None,
    *,
    price_per_hour: float | None,
    pictures: bool,
    config: Path | None,
    overrides: Sequence[str],
    console: Console,
) -> None:
    record = read_run_record(store)
    settings = _settings(record, config, overrides)
    page = make_report(store, settings, price_per_hour=price_per_hour, pictures=pictures)
    if html is None:
        store.write_bytes(REPORT_FILE, page)
        place = store.full(REPORT_FILE)
    else:
        Store(str(html.absolute().parent)).write_bytes(html.name, page)
        place = str(html)
    console.print(f"written: {place}", markup=False, soft_wrap=True)


class _KeptReport:
    """The report's page: the one that lies in the output, else made when it is first wanted."""

    def __init__(self, store: Store, config: PipelineConfig) -> None:
        self._store = store
        self._config = config
        self._lock = threading.Lock()

    def read(self) -> bytes:
        with self._lock:
            if not self._store.exists(REPORT_FILE):
                logger.info("the report is made; it is kept as %s", REPORT_FILE)
                self._store.write_bytes(REPORT_FILE, make_report(self._store, self._config))
            return self._store.read_bytes(REPORT_FILE)


def _settings(record: RunRecord, config: Path | None, overrides: Sequence[str]) -> PipelineConfig:
    """As the last run had them, unless others are named."""
    if config is not None or overrides:
        return load_config(config, overrides)
    tree = {name: record.config[name] for name in _SECTIONS if name in record.config}
    return validate(PipelineConfig, tree, where=f"config in {RUN_FILE}")


def _listen(host: str, port: int) -> socket.socket:
    """Raises ReviewError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise ReviewError(
            f"{host}:{port}: cannot be bound ({error}); choose another --port"
        ) from error
    return listener
