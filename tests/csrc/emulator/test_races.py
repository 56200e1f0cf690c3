"""The verdict on races against brute force over random programs of reads, writes and barriers.

Two accesses of one cell by different threads, one of them a write, are a race unless a block
barrier lies between, or, in one warp, a __syncwarp. A shuffle orders nothing, and nothing orders
blocks. The emulator keeps one stamp per cell and reader or writer; that it forgets nothing that
matters is what is tested here.
"""

import ctypes
import itertools
from dataclasses import dataclass

import emulator
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

CELLS, WARP, THREADS = 4, 32, 64
NOTHING, SYNCWARP, SYNCTHREADS, SHUFFLE = range(4)


@dataclass(frozen=True)
class Access:
    step: int
    thread: int  # of the grid
    cell: int
    write: bool


def is_ordered(first: Access, second: Access, syncs: list[int]) -> bool:
    if first.thread == second.thread:
        return True
    if first.thread // THREADS != second.thread // THREADS:
        return False
    between = syncs[first.step : second.step]
    return SYNCTHREADS in between or (
        SYNCWARP in between and first.thread // WARP == second.thread // WARP
    )


def has_race(accesses: list[Access], syncs: list[int]) -> bool:
    """`accesses` by step."""
    return any(
        first.cell == second.cell
        and (first.write or second.write)
        and not is_ordered(first, second, syncs)
        for first, second in itertools.combinations(accesses, 2)
    )


@st.composite
def programs(draw: st.DrawFn, blocks: int) -> tuple[list[Access], list[int]]:
    steps = draw(st.integers(1, 6))
    syncs = [draw(st.sampled_from([NOTHING, SYNCWARP, SYNCTHREADS, SHUFFLE])) for _ in range(steps)]
    # Few threads, some of one warp: cells are met often.
    threads = [block * THREADS + thread for block in range(blocks) for thread in (0, 1, 2, 40, 41)]
    accesses = []
    for step in range(steps):
        for thread in draw(st.lists(st.sampled_from(threads), max_size=3, unique=True)):
            cell, write = draw(st.integers(0, CELLS - 1)), draw(st.booleans())
            accesses.append(Access(step, thread, cell, write))
    return accesses, syncs


def verdict(
    kernels: ctypes.CDLL,
    accesses: list[Access],
    syncs: list[int],
    blocks: int,
    shared: bool,
    seed: int,
) -> bool:
    program = np.zeros((len(syncs), blocks * THREADS), np.int32)
    for access in accesses:
        program[access.step, access.thread] = 1 + access.cell + CELLS * access.write
    with emulator.Device(kernels, seed=seed) as device:
        arguments = [
            device.input("program", program),
            device.input("syncs", np.array(syncs, np.int32)),
            len(syncs),
            device.memory("cells", np.zeros(CELLS, np.int32)),
        ]
        try:
            device.call("judge_accesses", *arguments, blocks, shared)
        except emulator.EmulatorFault as fault:
            return fault.kind == "race"
        return False


@given(programs(blocks=1), st.integers(0, 20))
def test_races_in_shared_memory(
    kernels: ctypes.CDLL, program: tuple[list[Access], list[int]], seed: int
) -> None:
    accesses, syncs = program
    assert verdict(kernels, accesses, syncs, 1, True, seed) == has_race(accesses, syncs)


@given(programs(blocks=2), st.integers(0, 20))
def test_races_in_global_memory(
    kernels: ctypes.CDLL, program: tuple[list[Access], list[int]], seed: int
) -> None:
    accesses, syncs = program
    assert verdict(kernels, accesses, syncs, 2, False, seed) == has_race(accesses, syncs)
