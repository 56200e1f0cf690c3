"""Bytes, transactions and bank conflicts against counts by hand."""

import ctypes

import emulator
import numpy as np
import pytest
from emulator import Traffic


def copied(
    kernels: ctypes.CDLL, function: str, element: int, count: int, misalignment: int = 0
) -> emulator.Launch:
    x = np.random.default_rng(count).integers(0, 256, element * count).astype(np.uint8)
    out = np.zeros_like(x)
    with emulator.Device(kernels) as device:
        source = device.input("x", x, misalignment=misalignment)
        device.call(function, source, device.output("out", out), count)
        assert np.array_equal(x, out)
        return device.launches()[-1]


def test_whole_lines(kernels: ctypes.CDLL) -> None:
    """128 lanes of 16 bytes: 64 sectors in, 64 out, each of them full."""
    launch = copied(kernels, "copy_16", 16, 128)
    assert launch.buffers == {
        "x": (Traffic(2048, 64, 64), Traffic()),
        "out": (Traffic(), Traffic(2048, 64, 64)),
    }
    assert launch.traffic == Traffic(4096, 128, 128)
    assert (launch.full_share, launch.traffic.moved_bytes, launch.ambiguous) == (1, 4096, 0)
    assert sorted((site.operation, site.requests) for site in launch.sites) == [
        ("load", 4),
        ("store", 4),
    ]


def test_a_ragged_end(kernels: ctypes.CDLL) -> None:
    """100 values of 2 bytes: 64 bytes a warp, the last of which has 4 lanes."""
    launch = copied(kernels, "copy_2", 2, 100)
    assert launch.buffers["x"][0] == Traffic(200, 7, 6)
    assert launch.ambiguous == 0


def test_misaligned_lines(kernels: ctypes.CDLL) -> None:
    """A warp's 64 bytes from an address of 8 modulo 32 touch three sectors, one of them full."""
    launch = copied(kernels, "copy_2", 2, 64, misalignment=8)
    assert launch.buffers["x"][0] == Traffic(128, 6, 2)


@pytest.mark.parametrize(
    ("stride", "traffic"),
    [
        (0, Traffic(4, 1, 0)),  # all lanes one word
        (1, Traffic(128, 4, 4)),
        (2, Traffic(128, 8, 0)),
        (8, Traffic(128, 32, 0)),
        (1000, Traffic(128, 32, 0)),
    ],
)
def test_strided_reads(kernels: ctypes.CDLL, stride: int, traffic: Traffic) -> None:
    x, out = np.arange(31 * stride + 1, dtype=np.float32), np.zeros(32, np.float32)
    with emulator.Device(kernels) as device:
        device.call("gather_strided", device.input("x", x), device.output("out", out), stride)
        launch = device.launches()[-1]
    assert np.array_equal(out, stride * np.arange(32))
    assert launch.buffers["x"][0] == traffic
    assert launch.buffers["out"][1] == Traffic(128, 4, 4)


@pytest.mark.parametrize(
    ("stride", "conflicts"), [(0, 0), (1, 0), (2, 1), (3, 0), (4, 3), (16, 15), (32, 31), (31, 0)]
)
def test_conflicts_of_words(kernels: ctypes.CDLL, stride: int, conflicts: int) -> None:
    """Words 0, s, 2s, ..: gcd(s, 32) lanes on each bank; with stride 0 all lanes share one."""
    out = np.zeros(32, np.float32)
    with emulator.Device(kernels) as device:
        device.call("words_of_stride", device.output("out", out), stride)
        launch = device.launches()[-1]
    assert np.array_equal(out, stride * np.arange(32))
    assert launch.bank_conflicts == conflicts


@pytest.mark.parametrize(
    ("pitch", "conflicts"),
    [
        (4, 0),  # rows of 16 bytes side by side
        (8, 4 * 1),  # 32 bytes: of eight lanes, two on each bank
        (12, 0),  # 48 bytes: 0, 12, 24, 4, 16, 28, 8, 20
        (16, 4 * 3),
        (20, 0),
        (32, 4 * 7),
    ],
)
def test_conflicts_of_rows(kernels: ctypes.CDLL, pitch: int, conflicts: int) -> None:
    """16 bytes a lane: four phases of eight lanes; a store, and a load of the same addresses."""
    out = np.zeros(32, np.float32)
    with emulator.Device(kernels) as device:
        device.call("rows_of_pitch", device.output("out", out), pitch)
        sites = {
            site.operation: site for site in device.launches()[-1].sites if site.space == "shared"
        }
    assert np.array_equal(out, np.arange(32))
    assert sites["store"].bank_conflicts == sites["load"].bank_conflicts == conflicts


def test_matrices_and_copies_are_counted(kernels: ctypes.CDLL) -> None:
    x, out = np.zeros((32, 8), np.uint16), np.zeros((32, 8), np.uint32)
    with emulator.Device(kernels) as device:
        device.call("load_tiles", device.input("x", x), device.output("out", out))
        sites = [site for site in device.launches()[-1].sites if site.operation == "matrices"]
        # Two calls of four matrices, rows side by side.
        assert [(site.requests, site.asked_bytes, site.bank_conflicts) for site in sites] == [
            (4, 512, 0)
        ] * 2
        tiles = np.zeros((4, 128), np.float32)
        sums = np.zeros((4, 32), np.float32)
        device.call("sum_pipeline", device.input("x", tiles), device.output("out", sums), 4)
        sites = device.launches()[-1].sites
    (source,) = [site for site in sites if site.operation == "copy_from"]
    (target,) = [site for site in sites if site.operation == "copy_to"]
    # Four tiles are read; two beyond the end are filled with zeros.
    assert (source.requests, source.traffic) == (4, Traffic(2048, 64, 64))
    assert (target.requests, target.asked_bytes, target.space) == (6, 3072, "shared")


def test_lanes_that_skip_a_call_are_told(kernels: ctypes.CDLL) -> None:
    """500 values over 64 threads: the last turn of the loop has 52 of them."""
    x, bins = np.zeros(500, np.int32), np.zeros(16, np.uint32)
    with emulator.Device(kernels) as device:
        device.call("count_bins", device.input("x", x), 500, device.output("bins", bins))
        assert device.launches()[-1].ambiguous > 0
        device.forget()
        device.call("count_bins", device.input("x", x), 448, device.output("bins", bins))
        assert device.launches()[-1].ambiguous == 0


def test_a_warp_of_two_minds_is_counted_as_two_requests(kernels: ctypes.CDLL) -> None:
    """Lanes 8..15 shuffle alone; what all lanes do afterwards is one request again."""
    x, out = np.arange(32, dtype=np.int32), np.zeros((7, 32), np.int32)
    with emulator.Device(kernels) as device:
        device.call("shuffle_all", device.input("x", x), device.output("out", out))
        launch = device.launches()[-1]
    assert (launch.shuffles, launch.buffers["out"][1]) == (7, Traffic(7 * 128, 28, 28))


def test_what_a_launch_was(kernels: ctypes.CDLL) -> None:
    x, out = np.zeros((5, 128), np.float32), np.zeros(5, np.float32)
    with emulator.Device(kernels) as device:
        address = device.output("out", out)
        assert device.unwritten_bytes(address) == 20
        device.call("sum_blocks", device.input("x", x), address, 5)
        launch = device.launches()[-1]
        assert device.unwritten_bytes(address) == 0
    assert (launch.name, launch.grid, launch.block) == ("block_sum", (5, 1, 1), (128, 1, 1))
    assert (launch.blocks, launch.block_barriers, launch.static_shared_bytes) == (5, 5 * 7, 512)


def test_tensor_core_instructions_are_counted_by_shape(kernels: ctypes.CDLL) -> None:
    names = ["f16_k16", "bf16_k16", "f16_k8", "bf16_k8", "tf32_k8", "s8_k32", "s8_k16"]
    for name in names:
        registers = np.zeros((32, 4), np.int32)
        with emulator.Device(kernels) as device:
            a, b = device.input("a", registers), device.input("b", registers)
            device.call(f"multiply_{name}", a, b, device.memory("d", registers.copy()))
            assert device.launches()[-1].mma == {other: int(other == name) for other in names}
