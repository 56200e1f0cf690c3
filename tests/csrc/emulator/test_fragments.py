"""mma and ldmatrix against two independent tables of who holds what.

`ISA`: the element formulas of the PTX ISA, "Matrix Fragments for mma.m16n8k8, k16, k32", element by
element. `CUTLASS`: NVIDIA's cute/atom/mma_traits_sm80.hpp, where a layout is a list of extents and
strides over lanes and values into a column-major matrix. The emulator's own formulas are neither.
"""

from collections.abc import Callable
from dataclasses import dataclass

import emulator
import numpy as np
import pytest
import torch
from gpu import Gpu

M, N, LANES = 16, 8, 32

Element = Callable[[int, int, int], tuple[int, int]]  # (group, thread in group, i) -> row, column
Strides = list[tuple[int, int]]  # (extent, stride), fastest first


@dataclass(frozen=True)
class Shape:
    """One mma: K, values per 32-bit register, and both tables for A and B."""

    function: str
    k: int
    per_register: int
    isa_a: Element
    isa_b: Element
    cutlass_a: tuple[Strides, Strides]
    cutlass_b: tuple[Strides, Strides]


SHAPES = {
    "f16_k16": Shape(
        "multiply_f16_k16",
        16,
        2,
        lambda g, t, i: (
            g if 0 <= i < 2 or 4 <= i < 6 else g + 8,
            t * 2 + (i & 1) + (0 if i < 4 else 8),
        ),
        lambda g, t, i: (t * 2 + (i & 1) + (0 if i < 2 else 8), g),
        ([(4, 32), (8, 1)], [(2, 16), (2, 8), (2, 128)]),
        ([(4, 16), (8, 1)], [(2, 8), (2, 64)]),
    ),
    "f16_k8": Shape(
        "multiply_f16_k8",
        8,
        2,
        lambda g, t, i: (g if i < 2 else g + 8, t * 2 + (i & 1)),
        lambda g, t, i: (t * 2 + i, g),
        ([(4, 32), (8, 1)], [(2, 16), (2, 8)]),
        ([(4, 16), (8, 1)], [(2, 8)]),
    ),
    "tf32_k8": Shape(
        "multiply_tf32_k8",
        8,
        1,
        lambda g, t, i: (g if i in (0, 2) else g + 8, t if i < 2 else t + 4),
        lambda g, t, i: (t if i == 0 else t + 4, g),
        ([(4, 16), (8, 1)], [(2, 8), (2, 64)]),
        ([(4, 8), (8, 1)], [(2, 32)]),
    ),
    "s8_k32": Shape(
        "multiply_s8_k32",
        32,
        4,
        lambda g, t, i: (
            g if 0 <= i < 4 or 8 <= i < 12 else g + 8,
            t * 4 + (i & 3) + (0 if i < 8 else 16),
        ),
        lambda g, t, i: (t * 4 + (i & 3) + (0 if i < 4 else 16), g),
        ([(4, 64), (8, 1)], [(4, 16), (2, 8), (2, 256)]),
        ([(4, 32), (8, 1)], [(4, 8), (2, 128)]),
    ),
    "s8_k16": Shape(
        "multiply_s8_k16",
        16,
        4,
        lambda g, t, i: (g if i < 4 else g + 8, t * 4 + (i & 3)),
        lambda g, t, i: (t * 4 + i, g),
        ([(4, 64), (8, 1)], [(4, 16), (2, 8)]),
        ([(4, 32), (8, 1)], [(4, 8)]),
    ),
}
SHAPES["bf16_k16"] = Shape("multiply_bf16_k16", *list(vars(SHAPES["f16_k16"]).values())[1:])
SHAPES["bf16_k8"] = Shape("multiply_bf16_k8", *list(vars(SHAPES["f16_k8"]).values())[1:])


def isa_d(g: int, t: int, i: int) -> tuple[int, int]:
    return (g if i < 2 else g + 8), t * 2 + (i & 1)


CUTLASS_D = ([(4, 32), (8, 1)], [(2, 16), (2, 8)])


def isa_table(element: Element, count: int) -> list[list[tuple[int, int]]]:
    """[lane][value] -> row, column."""
    return [[element(lane >> 2, lane % 4, i) for i in range(count)] for lane in range(LANES)]


def offset(index: int, strides: Strides) -> int:
    total = 0
    for extent, stride in strides:
        total, index = total + index % extent * stride, index // extent
    assert index == 0
    return total


def cutlass_table(
    layout: tuple[Strides, Strides], rows: int, count: int
) -> list[list[tuple[int, int]]]:
    """[lane][value] -> row, column of a column-major matrix of `rows`."""
    of_lane, of_value = layout
    offsets = [
        [offset(lane, of_lane) + offset(i, of_value) for i in range(count)] for lane in range(LANES)
    ]
    return [[(at % rows, at // rows) for at in lane] for lane in offsets]


@pytest.mark.parametrize("name", SHAPES)
def test_the_two_tables_agree(name: str) -> None:
    shape = SHAPES[name]
    a, b = M * shape.k // LANES, N * shape.k // LANES
    assert isa_table(shape.isa_a, a) == cutlass_table(shape.cutlass_a, M, a)
    # CUTLASS writes B as [N, K].
    turned = [[(k, n) for n, k in lane] for lane in cutlass_table(shape.cutlass_b, N, b)]
    assert isa_table(shape.isa_b, b) == turned
    assert isa_table(isa_d, 4) == cutlass_table(CUTLASS_D, M, 4)


def spread(matrix: torch.Tensor, table: list[list[tuple[int, int]]]) -> torch.Tensor:
    """[lane, value]: what each lane holds, in the order of its registers."""
    cells = torch.tensor(table)
    return matrix[cells[..., 0], cells[..., 1]].contiguous()


def multiply(
    device: emulator.Device | Gpu, shape: Shape, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor
) -> torch.Tensor:
    """a [M, K] times b [K, N] on c, by one warp."""
    a_lanes = spread(a, isa_table(shape.isa_a, M * shape.k // LANES))
    b_lanes = spread(b, isa_table(shape.isa_b, N * shape.k // LANES))
    table = isa_table(isa_d, 4)
    d_lanes = spread(c, table)
    registers = [device.input("a", a_lanes.view(torch.int32))]
    registers.append(device.input("b", b_lanes.view(torch.int32)))
    device.call(shape.function, *registers, device.memory("d", d_lanes))
    d, cells = torch.empty_like(c), torch.tensor(table)
    d[cells[..., 0], cells[..., 1]] = d_lanes
    return d


DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float32}


@pytest.mark.parametrize("name", [name for name in SHAPES if name.startswith("s8")])
def test_integers_are_exact_and_wrap(device: emulator.Device | Gpu, name: str) -> None:
    shape = SHAPES[name]
    generator = torch.Generator().manual_seed(shape.k)
    for _ in range(10):
        a = torch.randint(-128, 128, (M, shape.k), generator=generator)
        b = torch.randint(-128, 128, (shape.k, N), generator=generator)
        c = torch.randint(-(2**31), 2**31, (M, N), generator=generator)
        d = multiply(device, shape, a.to(torch.int8), b.to(torch.int8), c.to(torch.int32))
        assert torch.equal(d, (a @ b + c).to(torch.int32))


@pytest.mark.parametrize("name", [name for name in SHAPES if not name.startswith("s8")])
def test_floats_are_exact_where_every_sum_is(device: emulator.Device | Gpu, name: str) -> None:
    """Small integers: no order of summation rounds, so that nothing but the layout counts."""
    shape, dtype = SHAPES[name], DTYPES[name.split("_")[0]]
    generator = torch.Generator().manual_seed(shape.k)
    for _ in range(10):
        a = torch.randint(-100, 101, (M, shape.k), generator=generator).to(dtype)
        b = torch.randint(-100, 101, (shape.k, N), generator=generator).to(dtype)
        c = torch.randint(-1000, 1001, (M, N), generator=generator).float()
        assert torch.equal(multiply(device, shape, a, b, c), a.float() @ b.float() + c)


def test_tf32_reads_ten_bits_of_the_mantissa(device: emulator.Device | Gpu) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = SHAPES["tf32_k8"]
    a, b = torch.rand(M, shape.k, generator=generator), torch.rand(shape.k, N, generator=generator)
    seen = [(value.view(torch.int32) & ~0x1FFF).view(torch.float32).double() for value in (a, b)]
    d = multiply(device, shape, a, b, torch.zeros(M, N))
    assert torch.allclose(d.double(), seen[0] @ seen[1], rtol=8 * 2.0**-24, atol=0)


def test_ldmatrix_gives_a_lane_two_values_of_a_row_of_each_matrix(
    device: emulator.Device | Gpu,
) -> None:
    """PTX ISA: lane l gets row l / 4, columns 2 (l % 4) and the next; with .trans, turned."""
    x = np.random.default_rng(0).permutation(2**16)[: 32 * 8].astype(np.uint16).reshape(32, 8)
    out = np.zeros((32, 8), np.uint32)
    device.call("load_tiles", device.input("x", x), device.output("out", out))
    for lane in range(LANES):
        row, column = lane // 4, 2 * (lane % 4)
        for matrix in range(4):
            tile = x[8 * matrix : 8 * matrix + 8].astype(np.uint32)
            plain = tile[row, column] | tile[row, column + 1] << 16
            turned = tile[column, row] | tile[column + 1, row] << 16
            assert (out[lane, matrix], out[lane, 4 + matrix]) == (plain, turned)
