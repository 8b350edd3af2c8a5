"""One run per output, and only outputs that this version can read.

A local output is locked by the kernel (flock), which forgets the lock with its process: a killed
run leaves nothing stale. Object stores know no locks; there an object with a heartbeat does, as
well as it can: it is stale when its process is gone from this machine or its heartbeat is old.
"""

import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.engine.errors import OutputLockedError, OutputVersionError
from pipeline.storage import StorageError, Store, explain
from schemas.base import canonical_json

logger = logging.getLogger(__name__)

OUTPUT_VERSION = 1  # of the layout of tables and shards below an output
VERSION_FILE = "output.json"
LOCK_FILE = ".lock"
HEARTBEAT_S = 15.0
_STALE_AFTER = 6  # heartbeats


def check_version(store: Store) -> bool:
    """Whether the output exists already. Raises OutputVersionError when another version made it."""
    if not store.exists(VERSION_FILE):
        return False
    try:
        found = json.loads(store.read_bytes(VERSION_FILE)).get("schema_version")
    except (ValueError, AttributeError):
        found = "unreadable"
    if found != OUTPUT_VERSION:
        raise OutputVersionError(
            f"{store.location}: made by schema version {found}, this is {OUTPUT_VERSION}; "
            "choose another --output"
        )
    return True


@contextmanager
def locked_output(location: str, *, heartbeat_s: float = HEARTBEAT_S) -> Iterator[Store]:
    """The output, ours alone for the time of the block. Its version is written before all else.

    Raises OutputLockedError, OutputVersionError or StorageError.
    """
    store = Store(location)
    check_version(store)
    lock = _local_lock(store) if store.is_local else _remote_lock(store, heartbeat_s)
    with lock:
        if not check_version(store):
            text = canonical_json({"schema_version": OUTPUT_VERSION})
            store.write_bytes(VERSION_FILE, text.encode())
        yield store


@contextmanager
def _local_lock(store: Store) -> Iterator[None]:
    path = Path(store.full(LOCK_FILE))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(explain(error, store.location)) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 4096, 0).decode(errors="replace")
            raise _locked(store, holder) from error
        _sign(store, descriptor)
        yield
    finally:
        os.close(descriptor)


def _sign(store: Store, descriptor: int) -> None:
    """Say who holds the lock."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, canonical_json(_owner()).encode(), 0)
    except OSError as error:
        raise StorageError(explain(error, store.location)) from error


@contextmanager
def _remote_lock(store: Store, heartbeat_s: float) -> Iterator[None]:
    run = uuid.uuid4().hex
    holder = _read_lock(store)
    if holder is not None and not _is_stale(holder, heartbeat_s):
        raise _locked(store, canonical_json(holder))

    def beat() -> None:
        body = {**_owner(), "run": run, "time_s": time.time()}
        store.write_bytes(LOCK_FILE, canonical_json(body).encode())

    beat()
    found = _read_lock(store)
    if found is None or found.get("run") != run:
        raise _locked(store, canonical_json(found))
    over = threading.Event()

    def keep_beating() -> None:
        while not over.wait(heartbeat_s):
            try:
                beat()
            except StorageError as error:
                logger.warning("the lock was not renewed: %s", error)

    thread = threading.Thread(target=keep_beating, name="output-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        store.remove(LOCK_FILE)


def _read_lock(store: Store) -> dict[str, Any] | None:
    store.fs.invalidate_cache()
    if not store.exists(LOCK_FILE):
        return None
    try:
        lock = json.loads(store.read_bytes(LOCK_FILE))
    except (ValueError, FileNotFoundError):
        return None
    return lock if isinstance(lock, dict) else None


def _is_stale(holder: dict[str, Any], heartbeat_s: float) -> bool:
    if holder.get("host") == socket.gethostname() and not _is_running(int(holder.get("pid", 0))):
        return True
    age_s = time.time() - float(holder.get("time_s", 0.0))
    return age_s > _STALE_AFTER * heartbeat_s


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _owner() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _locked(store: Store, holder: str) -> OutputLockedError:
    return OutputLockedError(
        f"{store.location}: another run writes here ({holder or 'unknown'}); wait for it, end it, "
        "or choose another --output"
    )
