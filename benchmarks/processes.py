"""Long jobs side by side, a process of one thread each: progress, one-line errors, a clean stop."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from tqdm import tqdm

from starlight.errors import USER_ERRORS

Report = Callable[[int], None]

# Of a child: one thread, and no progress bar beside the common one.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def run_side_by_side(work: str, jobs: Sequence[Any], *, parallel: int, steps: int) -> None:
    """Run `work(job, report)` for every job, `parallel` of them at a time.

    work: "module:function", imported in the child alone. job: anything that pickles; its str names
    it in errors. report: what a job calls with the number of steps it went on; `steps` is the sum
    over all jobs.

    The first job that fails ends the others by SIGTERM, and so do Ctrl-C and SIGTERM here; they
    have the time to save their state. Raises ValueError with the job's own reason.
    """
    if not jobs:
        return
    waiting, running = list(reversed(jobs)), list[_Child]()
    interval = 1.0 if sys.stderr.isatty() else 60.0
    with tqdm(total=steps, unit="step", mininterval=interval) as bar, _interrupted_by_sigterm():
        try:
            while waiting or running:
                while waiting and len(running) < parallel:
                    running.append(_start(work, waiting.pop()))
                bar.set_postfix_str(f"{len(waiting) + len(running)} jobs left", refresh=False)
                ready = wait([child.receiver for child in running])
                for child in [child for child in running if child.receiver in ready]:
                    message = child.receive()
                    if isinstance(message, int):
                        bar.update(message)
                        continue
                    running.remove(child)
                    if message is not None:
                        raise ValueError(f"{child.job}: {message}")
        finally:
            for child in running:
                child.process.terminate()
            for child in running:
                child.process.join()


@dataclass(frozen=True)
class _Child:
    process: BaseProcess
    receiver: Connection
    job: Any

    def receive(self) -> int | str | None:
        """Steps that it went on, the reason of its failure, or None when it has finished."""
        try:
            return self.receiver.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            return None if code == 0 else f"process must exit with 0, got {code}"


def _start(work: str, job: Any) -> _Child:
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(work, job, sender))
    with _environment_of_child():
        process.start()
    sender.close()  # the child's copy alone is open: its end is the pipe's end
    return _Child(process, receiver, job)


def _run(work: str, job: Any, sender: Connection) -> None:
    module, function = work.split(":")
    try:
        getattr(import_module(module), function)(job, sender.send)
    except USER_ERRORS as error:
        sender.send(str(error))
        raise SystemExit(2) from None


@contextmanager
def _environment_of_child() -> Iterator[None]:
    """What a process started inside inherits: `ENVIRONMENT`, and deafness to Ctrl-C.

    Ctrl-C reaches the whole group, and a child that imports has nothing to save; the parent ends
    its children itself.
    """
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.signal(signal.SIGINT, handler)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt inside the block, as Ctrl-C does."""
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
