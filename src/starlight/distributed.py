"""Several processes that train as one, on one machine or many.

    starlight train train.toml --processes 2
    torchrun --nnodes 2 --nproc-per-node 4 ... -m starlight train train.toml

A command enters `join()` and gets a `World`; started by itself it is the only process of its world,
and the same code runs. Every process takes its part of the global batch, gradients and losses are
averaged, and the writer alone leaves files and speaks. gloo connects CPUs, NCCL GPUs. The launcher
behind `--processes` sets what torchrun sets, for one machine, and keeps the command's exit code.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import IO, Any, Final, TypeVar

import click
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

TIMEOUT: Final = timedelta(hours=2)  # the writer measures and exports while the others wait
GRACE_SECONDS: Final = 10.0  # from the end of one process to the end of all


@dataclass(frozen=True)
class World:
    """The processes of one training: this one's `rank` of `size`, and the device it computes on."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_writer(self) -> bool:
        """Whether this process leaves files and speaks: one of the world does."""
        return self.rank == 0

    def part(self, batch: int) -> range:
        """Indices of a global batch that this process takes; parts are equal and follow in order.

        Raises ValueError unless the size of the world divides the batch.
        """
        if batch % self.size:
            raise ValueError(
                f"distributed: batch must be a multiple of {self.size} processes, got {batch}"
            )
        share = batch // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def wrap(self, network: nn.Module) -> nn.Module:
        """The module to call in training: its backward averages gradients over the world.

        Weights start as the writer's. The same module comes back in a world of one.
        """
        if self.size == 1:
            return network
        # Gradients of 1x1 convolutions come in either memory format; both are averaged alike.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices)

    def mean(self, *values: float) -> list[float]:
        """The mean of each value over the world, in float64; the same bits in every process."""
        if self.size == 1:
            return list(values)
        # Gathered and added in order of rank: a reduction's order is the library's.
        gathered = self._gather(torch.tensor(values, dtype=torch.float64, device=self.device))
        return (torch.stack(gathered).sum(0) / self.size).tolist()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in some process."""
        return self.mean(float(flag))[0] > 0

    def from_writer(self, function: Callable[[], T]) -> T:
        """What the function gives in the writer, in every process: others may not see its disk."""
        if self.size == 1:
            return function()
        values = [function() if self.is_writer else None]
        distributed.broadcast_object_list(values, src=0, device=self.device)
        return values[0]  # type: ignore[return-value]

    def _gather(self, values: Tensor) -> list[Tensor]:
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(gathered, values)
        return gathered

    def wait(self) -> None:
        """Return when every process has called this."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def join(device: str | None = None) -> Iterator[World]:
    """The world that torchrun's environment (RANK, WORLD_SIZE ...) describes, or a world of one.

    device: `cpu`, `cuda`, `cuda:1` ...; None: CUDA where there is one. Of several processes on a
    machine each takes the GPU of its local rank.

    Leaving it waits for the other processes, but after an error. Raises ValueError for an unknown
    device or one that is not there.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", 0)), size)
    if size == 1:
        yield World(device=chosen)
        return
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=TIMEOUT)
    world = World(rank, size, chosen)
    try:
        try:
            yield world
        except SystemExit:  # an end on which all agree; after an error the others are stopped
            world.wait()
            raise
        world.wait()
    finally:
        distributed.destroy_process_group()


def _device(name: str | None, local_rank: int, size: int) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"distributed: device must be cpu or cuda, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"distributed: device must be cpu or cuda, got {name!r}")
    if device.type == "cuda":
        if device.index is None and size > 1:
            device = torch.device("cuda", local_rank)
        if (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"distributed: device must be one of {torch.cuda.device_count()} GPUs, got {device}"
            )
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True  # the same weights from the same seed
    return device


def processes_option(module: str) -> Callable[[Any], Any]:
    """A click decorator: `--processes N` runs `python -m module`, same arguments, N times."""

    def start(ctx: click.Context, param: click.Parameter, value: int) -> None:
        if value > 1 and "RANK" not in os.environ:
            ctx.exit(launch([sys.executable, "-m", module, *sys.argv[1:]], value))

    return click.option(
        "--processes",
        type=click.IntRange(1),
        default=1,
        is_eager=True,
        expose_value=False,
        callback=start,
        help="Processes of this machine that train as one; torchrun for more machines.",
    )


def launch(command: Sequence[str], processes: int) -> int:
    """Run a command as several processes of one world and return its exit code.

    The writer's output is shown, the others' errors only when the writer did not fail itself. When
    a process ends with an error, the others are stopped. Ctrl-C reaches all.
    """
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with ExitStack() as files:
        errors = [files.enter_context(tempfile.TemporaryFile()) for _ in range(processes - 1)]
        codes = _run(command, world, errors)
        if codes[0] <= 0:
            for stream, code in zip(errors, codes[1:], strict=True):
                if code > 0:
                    stream.seek(0)
                    click.echo(stream.read().decode(errors="replace"), err=True, nl=False)
    if codes[0] > 0:
        return codes[0]
    failed = [code for code in codes if code > 0] or [128 - code for code in codes if code < 0]
    return (failed or [0])[0]


def _run(command: Sequence[str], world: dict[str, str], errors: Sequence[IO[bytes]]) -> list[int]:
    """One process for the writer and one for each file of errors; their exit codes by rank."""
    running = [
        subprocess.Popen(
            command,
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL if rank else None,
            stderr=errors[rank - 1] if rank else None,
        )
        for rank in range(1 + len(errors))
    ]
    return _await(running)


def _await(running: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """The processes' exit codes; after the first failure the others get GRACE_SECONDS."""

    def forward(signum: int, frame: Any) -> None:
        for process in running:
            process.send_signal(signum)

    # The terminal's Ctrl-C goes to every process itself.
    previous = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda signum, frame: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, forward),
    }
    deadline: float | None = None
    try:
        while None in (codes := [process.poll() for process in running]):
            now = time.monotonic()
            if deadline is None and any(codes):
                deadline = now + GRACE_SECONDS
            if deadline is not None and now > deadline:
                for process in running:
                    process.kill()
            time.sleep(0.05)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return [code for code in codes if code is not None]
