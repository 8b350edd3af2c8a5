"""Runs a command and ends it, with its children, as soon as this process's input closes.

Started as a file by pipeline/caption/serve.py: a worker that is killed cannot clean up, but the
kernel closes its end of the pipe.
"""

import os
import subprocess
import sys
import threading

import psutil

_GRACE_S = 10.0


def main(command: list[str]) -> int:
    """The command's exit status; it is negative when the guard ended it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    closed = threading.Event()
    watcher = threading.Thread(target=_end_at_eof, args=(process, closed), daemon=True)
    watcher.start()
    status = process.wait()
    if closed.is_set():
        watcher.join()  # its children may need force
    return status


def _end_at_eof(process: "subprocess.Popen[bytes]", closed: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1 << 10):  # a buffered read would hold a lock at exit
        pass
    closed.set()
    try:
        parent = psutil.Process(process.pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for member in family:
        _send(member, force=False)
    _, alive = psutil.wait_procs(family, timeout=_GRACE_S)
    for member in alive:
        _send(member, force=True)


def _send(process: psutil.Process, *, force: bool) -> None:
    try:
        if force:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
