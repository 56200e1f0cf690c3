"""Work for the processes that test_processes.py starts; a job is the folder it may write to."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


def leave_environment(job: Path, report: Callable[[int], None]) -> None:
    for _ in range(3):
        report(1)
    deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    text = f"{os.environ['OMP_NUM_THREADS']} {os.environ['TQDM_DISABLE']} {deaf}"
    (job / f"{os.getpid()}.txt").write_text(text)


def refuse(job: Path, report: Callable[[int], None]) -> None:
    raise ValueError(f"weather: sun must shine, got rain in {job.name}")


def exit_with_3(job: Path, report: Callable[[int], None]) -> None:
    raise SystemExit(3)


def save_when_ended(job: Path, report: Callable[[int], None]) -> None:
    """Ends its parent by SIGTERM, and saves when the parent ends it."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    os.kill(os.getppid(), signal.SIGTERM)
    while not stopped:
        time.sleep(0.01)
    (job / "saved").touch()


def first_refuses_second_saves(job: Path, report: Callable[[int], None]) -> None:
    """The job `second` waits for a signal and saves; `first` refuses once `second` waits."""
    ready = job.parent / "ready"
    if job.name == "first":
        while not ready.exists():
            time.sleep(0.01)
        raise ValueError("first: luck must hold, got none")
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    ready.touch()
    while not stopped:
        time.sleep(0.01)
    (job.parent / "saved").touch()
