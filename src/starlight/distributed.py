"""Several processes that train as one, on one machine or many, started by torchrun.

    torchrun --nproc-per-node 2 -m starlight train train.toml

A command enters `join()` and gets a `World`; started by itself it is the only process of its world,
and the same code runs. Every process takes its part of the global batch, gradients and losses are
averaged, and the writer alone leaves files and speaks. gloo connects CPUs, NCCL GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

TIMEOUT = timedelta(hours=2)  # the writer measures and exports while the others wait


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
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)

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

    Raises ValueError for an unknown device or one that is not there.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", 0)), size)
    if size == 1:
        yield World(device=chosen)
        return
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield World(rank, size, chosen)
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
    return device
