"""What an access or an operation costs in energy: published constants, each with its source.

M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, pages 10-14,
for 45 nm at 0.9 V. They are taken as they stand, not scaled to another process: compare chips and
plans with them, and take joules for an order of magnitude. Leakage, clock tree, control, DRAM
refresh and the camera are not in them.
"""

import math
from dataclasses import dataclass, fields
from typing import Final

SOURCE: Final = "M. Horowitz, ISSCC 2014, 45 nm, 0.9 V, not scaled"

MULTIPLY_INT8_PJ: Final = 0.2
ADD_INT32_PJ: Final = 0.1
MAC_PJ: Final = MULTIPLY_INT8_PJ + ADD_INT32_PJ
# Bytes of a memory -> pJ of an access of 64 bits.
SRAM_ACCESS_PJ: Final = ((8 << 10, 10.0), (32 << 10, 20.0), (1 << 20, 100.0))
ACCESS_BYTES: Final = 8
DRAM_ACCESS_PJ: Final = 1300.0  # the lower end of 1.3 to 2.6 nJ


def sram_pj_per_byte(bank_bytes: int) -> float:
    """pJ per byte of a memory of that size: the published points joined by lines in log-log.

    The first and the last line are prolonged. Raises ValueError when the size is not positive.
    """
    if bank_bytes < 1:
        raise ValueError(f"energy: bank_bytes must be at least 1, got {bank_bytes}")
    points = SRAM_ACCESS_PJ
    index = sum(bank_bytes > size for size, _ in points[1:-1])
    (small, low), (large, high) = points[index], points[index + 1]
    slope = math.log(high / low) / math.log(large / small)
    return low * (bank_bytes / small) ** slope / ACCESS_BYTES


def dram_pj_per_byte() -> float:
    """pJ per byte that crosses the DRAM's pins, either way."""
    return DRAM_ACCESS_PJ / ACCESS_BYTES


@dataclass(frozen=True)
class Energy:
    """Joules by where they go."""

    array: float
    accumulators: float
    weight_buffer: float
    sram: float
    dram: float

    @property
    def total(self) -> float:
        return sum(self.values())

    def __add__(self, other: "Energy") -> "Energy":
        return Energy(*(one + two for one, two in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[float, ...]:
        """In the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))


def energy(
    macs: int,
    sum_bytes: int,
    weight_bytes: int,
    weight_buffer_bytes: int,
    sram_bytes: int,
    sram_bank_bytes: int,
    dram_bytes: int,
) -> Energy:
    """Joules of operations and of bytes moved, read and written alike.

    sum_bytes, weight_bytes, sram_bytes, dram_bytes: moved into or out of accumulators and memories.
    weight_buffer_bytes, sram_bank_bytes: sizes of what one access wakes; accumulators are priced as
    the smallest memory of the source.
    """
    return Energy(
        array=macs * MAC_PJ * 1e-12,
        accumulators=sum_bytes * sram_pj_per_byte(SRAM_ACCESS_PJ[0][0]) * 1e-12,
        weight_buffer=weight_bytes * sram_pj_per_byte(weight_buffer_bytes) * 1e-12,
        sram=sram_bytes * sram_pj_per_byte(sram_bank_bytes) * 1e-12,
        dram=dram_bytes * dram_pj_per_byte() * 1e-12,
    )
