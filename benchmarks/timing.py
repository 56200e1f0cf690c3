"""Peers timed in turns, so that a busy machine is busy for all of them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """The runs of one peer: seconds on the clock, and processor seconds of all its threads."""

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]

    def percentile_ms(self, percent: float) -> float:
        """Milliseconds that `percent` of the runs stayed within, linear between runs."""
        return float(np.percentile(self.wall_s, percent)) * 1e3

    @property
    def median_ms(self) -> float:
        return self.percentile_ms(50)

    @property
    def p20_ms(self) -> float:
        return self.percentile_ms(20)

    @property
    def p80_ms(self) -> float:
        return self.percentile_ms(80)

    @property
    def cores(self) -> float:
        """Cores kept busy: processor seconds over seconds on the clock, of all runs together."""
        return sum(self.cpu_s) / sum(self.wall_s)


def time_in_turns(
    peers: Mapping[str, Callable[[], object]], *, seconds: float, least: int, rest: float = 0.0
) -> dict[str, Timing]:
    """Time every peer, one run of each in a round, another peer first in every round.

    A peer is warmed up by one run that does not count, and leaves the rounds after `least` runs
    or `seconds` of its own running time, whichever comes later. Before each run all sleep for
    `rest` seconds: threads that the run before left spinning would slow it.
    Raises ValueError unless least is at least 1.
    """
    if least < 1:
        raise ValueError(f"timing: least must be at least 1, got {least}")
    for run in peers.values():
        run()
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    active = list(peers)
    while active:
        for name in active:
            time.sleep(rest)
            wall, cpu = time.perf_counter(), time.process_time()
            peers[name]()
            runs[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        active = [
            name
            for name in active
            if len(runs[name]) < least or sum(wall for wall, _ in runs[name]) < seconds
        ]
        active = active[1:] + active[:1]
    return {
        name: Timing(tuple(wall for wall, _ in done), tuple(cpu for _, cpu in done))
        for name, done in runs.items()
    }
