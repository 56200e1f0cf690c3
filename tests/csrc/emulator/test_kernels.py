"""Right kernels give right results, whatever the order in which threads run."""

import ctypes

import emulator
import numpy as np
import pytest
import torch
from gpu import Gpu


def test_indices(device: emulator.Device | Gpu) -> None:
    out = np.zeros((12, 40), np.int32)
    device.call("all_indices", device.output("out", out))
    assert np.array_equal(out, 1000 * np.arange(12)[:, None] + np.arange(40))


def test_block_sum(device: emulator.Device | Gpu) -> None:
    x = np.random.default_rng(0).integers(-99, 100, (5, 128)).astype(np.float32)
    out = np.zeros(5, np.float32)
    device.call("sum_blocks", device.input("x", x), device.output("out", out), 5)
    assert np.array_equal(out, x.sum(1))


def test_block_votes(device: emulator.Device | Gpu) -> None:
    for x in (np.arange(96) % 5, np.zeros(96), np.full(96, 9)):
        over, out = x > 2, np.zeros(4, np.int32)
        device.call(
            "vote_in_block", device.input("x", x.astype(np.int32)), device.output("out", out)
        )
        assert out.tolist() == [over.any(), over.all(), over.sum(), 0]


def test_atomics_in_shared_and_global_memory(device: emulator.Device | Gpu) -> None:
    x = np.random.default_rng(1).integers(0, 16, 500).astype(np.int32)
    bins = np.full(16, 77, np.uint32)
    device.call("count_bins", device.input("x", x), 500, device.output("bins", bins))
    assert np.array_equal(bins, 2 * np.bincount(x, minlength=16))


def test_shuffles(device: emulator.Device | Gpu) -> None:
    x = np.random.default_rng(2).integers(0, 1000, 32).astype(np.int32)
    out, lane = np.zeros((7, 32), np.int32), np.arange(32)
    device.call("shuffle_all", device.input("x", x), device.output("out", out))
    up, down = np.where(lane >= 2, lane - 2, lane), np.where(lane % 16 < 12, lane + 4, lane)
    expected = [np.full(32, x[5]), x[lane // 8 * 8 + (lane + 1) % 8], x[lane ^ 3], x[up], x[down]]
    part = np.where(lane // 8 == 1, x[lane ^ 7], 0)
    assert np.array_equal(out, [*expected, x[lane ^ 16], part])


def test_warp_votes(device: emulator.Device | Gpu) -> None:
    for x in (np.arange(32) % 5, np.zeros(32), np.full(32, 9)):
        over, out = x > 2, np.zeros(4, np.uint32)
        device.call(
            "vote_in_warp", device.input("x", x.astype(np.int32)), device.output("out", out)
        )
        ballot = sum(1 << int(lane) for lane in np.flatnonzero(over))
        assert out.tolist() == [ballot, over.any(), over.all(), 0]


def test_asynchronous_copies_in_three_stages(device: emulator.Device | Gpu) -> None:
    x = np.random.default_rng(3).integers(-99, 100, (7, 4, 32)).astype(np.float32)
    out = np.zeros((7, 32), np.float32)
    device.call("sum_pipeline", device.input("x", x), device.output("out", out), 7)
    assert np.array_equal(out, x.sum(1))


def test_an_empty_grid_launches_nothing(kernels: ctypes.CDLL) -> None:
    nothing = np.zeros(0, np.uint16)
    with emulator.Device(kernels) as device:
        device.call("copy_2", device.input("x", nothing), device.output("out", nothing), 0)
        assert device.launches() == []


@pytest.mark.parametrize(("name", "dtype"), [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_conversions_are_torchs_for_every_half_and_between(
    device: emulator.Device | Gpu, name: str, dtype: torch.dtype
) -> None:
    """All 65536 values, the ties between neighbours and what lies just beside those."""
    halves = torch.arange(2**16).to(torch.uint16).view(dtype).float()
    halves = halves[~halves.isnan()]
    finite = halves[halves.isfinite()].double().unique()
    ties = ((finite[1:] + finite[:-1]) / 2).float()
    beside = [torch.nextafter(ties, torch.tensor(end)) for end in (-torch.inf, torch.inf)]
    x = torch.cat([halves, ties, *beside, torch.tensor([65519.996, 65520.0, 3.4e38, 1e-45])])
    narrow, wide = torch.empty_like(x, dtype=dtype), torch.empty_like(x)
    addresses = device.output("narrow", narrow), device.output("wide", wide)
    device.call(f"convert_{name}", device.input("x", x), *addresses, x.numel())
    assert torch.equal(narrow.view(torch.int16), x.to(dtype).view(torch.int16))
    assert torch.equal(wide, x.to(dtype).float())


def test_not_a_number_stays_one(device: emulator.Device | Gpu) -> None:
    x = torch.tensor([torch.nan, -torch.nan])
    for name, dtype in (("f16", torch.float16), ("bf16", torch.bfloat16)):
        narrow, wide = torch.empty_like(x, dtype=dtype), torch.empty_like(x)
        addresses = device.output("narrow", narrow), device.output("wide", wide)
        device.call(f"convert_{name}", device.input("x", x), *addresses, 2)
        assert narrow.isnan().all()
        assert wide.isnan().all()


def test_tf32_rounds_ties_away_from_zero(device: emulator.Device | Gpu) -> None:
    one, step = 1.0, 2.0**-10
    cases = [(one + k * step / 4, one + [0, 0, 1, 1, 1][k] * step) for k in range(5)]
    cases += [(-value, -rounded) for value, rounded in cases] + [(3.4028e38, torch.inf)]
    x, rounded = (torch.tensor(values) for values in zip(*cases, strict=True))
    out = torch.empty_like(x)
    device.call("convert_tf32", device.input("x", x), device.output("out", out), x.numel())
    assert torch.equal(out, rounded)


def test_launches_follow_each_other(kernels: ctypes.CDLL) -> None:
    """What one has written is no race for the next, however many there are."""
    x, out = np.arange(128, dtype=np.uint16), np.zeros(128, np.uint16)
    with emulator.Device(kernels) as device:
        addresses = device.input("x", x), device.memory("out", out)
        for _ in range(600):
            device.call("copy_2", *addresses, 128)
    assert np.array_equal(out, x)
