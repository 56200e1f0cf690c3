"""What the emulator must refuse, and must let pass: the same kernels without the mistake."""

import ctypes
import re
from pathlib import Path

import emulator
import native_build
import numpy as np
import pytest

FOLDER = Path(__file__).parent
COUNT, THREADS = 128, 64

# Kernel of faults.cuh, kind of the fault, and what its message must tell. `out` starts unwritten.
FAULTS = [
    ("barrier_in_half", "barrier", r"got threads 0-31 at it; threads 32-63 have ended"),
    ("barrier_after_return", "barrier", r"threads 0-39, 41-63 at it; threads 40 have ended"),
    ("barrier_in_both_arms", "barrier", r"threads 0-31 at it; threads 32-63 at another"),
    ("barrier_too_often", "barrier", r"threads 32-63 at it; threads 0-31 have ended"),
    ("shuffle_in_half", "warp", r"threads 0-15 at faults.cuh:\d+; threads 16-31 have ended"),
    ("shuffle_from_outside", "warp", r"got lane 16 for lane 0"),
    ("mask_without_caller", "warp", r"thread \(0, 0, 0\).*must name the lane"),
    ("mma_in_half", "warp", r"threads 0-15 at faults.cuh:\d+|all 32 lanes"),
    ("past_the_end", "out_of_bounds", r"thread \(63, 0, 0\).*'x' \+ 512 of 512 bytes"),
    ("before_the_start", "out_of_bounds", r"thread \(0, 0, 0\).*'out' - 4 of 512 bytes"),
    ("last_bytes_past_the_end", "out_of_bounds", r"'x' \+ 512 of 512 bytes.*16"),
    ("overflown_index", "out_of_bounds", r"'x' - 8589934592 of 512|no buffer|outside"),
    ("past_a_static_array", "out_of_bounds", r"shared 'tile' \+ 256 of 256 bytes"),
    ("past_dynamic_memory", "out_of_bounds", r"shared 'dynamic shared memory' \+ 256 of 256"),
    ("unwritten_shared", "unwritten", r"thread \(56, 0, 0\).*shared 'tile' \+ 28 of"),
    ("unwritten_global", "unwritten", r"'out' \+ 0 of 512 bytes"),
    ("copy_without_wait", "unfinished_copy", r"'tile' \+ 0 of.*a copy of thread 0"),
    ("copy_waits_for_another", "unfinished_copy", r"'tile' \+ 1024 of.*a copy of thread 0"),
    ("copy_without_commit", "unfinished_copy", r"'tile' \+ 0 of.*a copy of thread 0"),
    ("wait_without_barrier", "unfinished_copy|unwritten|race", r"shared 'tile' \+ 16 of"),
    ("copy_over_readers", "race", r"write after a read by thread \d+"),
    ("copy_never_waited_for", "unfinished_copy", r"before it ends"),
    ("read_without_barrier", "unwritten|race", r"shared 'tile' \+"),
    ("write_without_barrier", "race", r"without a barrier"),
    ("two_writers", "race", r"thread \(1, 0, 0\).*write after a write by thread 0"),
    ("shuffle_as_fence", "race", r"read after a write by thread 30"),
    ("ldmatrix_without_barrier", "race", r"read after a write by thread 0"),
    ("syncwarp_between_warps", "unwritten|race", r"shared 'tile' \+ 252"),
    ("global_without_barrier", "unwritten|race", r"'out' \+ 4"),
    ("atomic_and_plain", "race", r"read after a write by an atomic operation"),
    ("blocks_write_one_place", "race", r"block \(1, 0, 0\).*write after a write by block 0"),
    ("halo_in_place", "race", r"block"),
    ("misaligned_load", "misaligned", r"'x' \+ 8 of 512 bytes.*16 bytes"),
    ("misaligned_store", "misaligned", r"'out' \+ 4 of 512 bytes.*8 bytes"),
    ("misaligned_copy", "misaligned", r"shared 'tile' \+ 12 of 32 bytes.*16 bytes"),
    ("misaligned_matrix", "misaligned", r"thread \(1, 0, 0\).*'tile' \+ 20 of.*16 bytes"),
    ("write_to_input", "read_only", r"'x' \+ 0 of 512 bytes"),
    ("constant_that_changes", "race", r"ld_const after a write by thread 0"),
    ("plain_global_read", "raw_access", r"'x' \+ 0 of 512 bytes.*must go through"),
    ("plain_shared_write", "raw_access", r"shared 'tile' \+ 0 of 256 bytes.*must go through"),
    ("deep_stack", "stack", r"must fit in 128 KiB"),
]
# Kernels that read what out held before.
MEMORY = {"halo_in_place"}


def run(faults: ctypes.CDLL, kernel: str, right: bool, seed: int) -> None:
    with emulator.Device(faults, seed=seed) as device:
        x = device.input("x", np.arange(COUNT, dtype=np.float32))
        add = device.memory if kernel in MEMORY else device.output
        device.call(f"fault_{kernel}", x, add("out", np.zeros(COUNT, np.float32)), right)


@pytest.mark.parametrize(("kernel", "kind", "message"), FAULTS, ids=[name for name, *_ in FAULTS])
def test_a_mistake_is_found_and_its_repair_is_not(
    faults: ctypes.CDLL, kernel: str, kind: str, message: str
) -> None:
    for seed in range(6):
        run(faults, kernel, True, seed)
        with pytest.raises(emulator.EmulatorFault) as caught:
            run(faults, kernel, False, seed)
        assert re.fullmatch(kind, caught.value.kind), caught.value
        if seed == 0:  # in order: the thread that finds it is known
            assert re.search(message, str(caught.value)), caught.value


def test_every_kernel_with_a_mistake_is_tried() -> None:
    source = (FOLDER / "faults.cpp").read_text(encoding="utf-8")
    assert re.findall(r"^FAULT\((\w+),", source, re.MULTILINE) == [name for name, *_ in FAULTS]


def test_every_kind_of_fault_is_documented_and_planted() -> None:
    text = (native_build.ROOT / "docs" / "EMULATOR.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    sources = "".join(path.read_text(encoding="utf-8") for path in emulator.EMULATOR.glob("*.cpp"))
    raised = set(re.findall(r'(?:fault|Fault|end)\(\s*"(\w+)"', sources))
    assert rows == raised
    planted = {kind for _, kinds, _ in FAULTS for kind in kinds.split("|")}
    assert rows - planted == {"launch"}  # see below


@pytest.mark.parametrize(
    ("threads", "shared_bytes", "message"),
    [(0, 0, "1 to 1024"), (1025, 0, "1 to 1024"), (32, 10241, "must fit in 10240 bytes")],
)
def test_a_launch_that_no_device_runs(
    faults: ctypes.CDLL, threads: int, shared_bytes: int, message: str
) -> None:
    with (
        emulator.Device(faults, shared_bytes=10240) as device,
        pytest.raises(emulator.EmulatorFault, match=message) as caught,
    ):
        device.call("fault_launch_shape", threads, shared_bytes)
    assert caught.value.kind == "launch"


def test_a_device_goes_on_after_a_fault(faults: ctypes.CDLL) -> None:
    with emulator.Device(faults) as device:
        x = device.input("x", np.ones(COUNT, np.float32))
        out = np.zeros(COUNT, np.float32)
        address = device.output("out", out)
        for _ in range(3):
            with pytest.raises(emulator.EmulatorFault, match="'x'"):
                device.call("fault_plain_global_read", x, address, False)
            device.call("fault_plain_global_read", x, address, True)
        assert out[:THREADS].sum() == THREADS
        assert device.unwritten_bytes(address) == 4 * (COUNT - THREADS)
