"""Cycles, traffic and energy of a network on a chip, from its layers and its capability file.

The array takes one tap of `input_lanes` input channels, `output_lanes` output channels and
`pixel_lanes` neighbours of a row in a cycle, so a layer on rows x columns takes

    k * k * ceil(I / input_lanes) * ceil(O / output_lanes) * rows * ceil(columns / pixel_lanes)

cycles: what does not fill the lanes is counted. Either sums stay in the array's registers until
they are whole and every cycle takes input_lanes * output_lanes weights from the weight buffer, or
weights stay along a row and every cycle reads and writes output_lanes * pixel_lanes sums of 32 bits
in the accumulators: the chip is taken to do what moves fewer bytes. Inputs are read from SRAM once
per tap and block of output lanes, results are written once. DRAM moves whole bursts. Compute and
DMA overlap (every operand has two buffers): a step takes the longer of the two, and what DMA takes
longer is the stall. On-chip memories keep up with the array by assumption.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from hls_export import blobs, rice
from hls_export.energy import Energy, energy
from hls_export.memory import check_size, level_size
from hls_export.npu import Chip, Performance
from hls_export.tables import channel_bytes
from quant import contract
from quant.integer_graph import IMAGE, IntegerGraph, Layer, View

ACCUMULATOR_BYTES = contract.ACCUMULATOR_BITS // 8


@dataclass(frozen=True)
class Traffic:
    """Bytes by memory and direction; DRAM in whole bursts."""

    dram_read: int = 0
    dram_write: int = 0
    sram_read: int = 0
    sram_write: int = 0
    weight_read: int = 0
    weight_write: int = 0
    sum_read: int = 0
    sum_write: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(one + two for one, two in zip(self.values(), other.values(), strict=True)))

    def times(self, count: int) -> "Traffic":
        """The same `count` times over."""
        return Traffic(*(value * count for value in self.values()))

    def values(self) -> tuple[int, ...]:
        """In the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

    @property
    def dram(self) -> int:
        return self.dram_read + self.dram_write

    @property
    def sram(self) -> int:
        return self.sram_read + self.sram_write

    @property
    def weights(self) -> int:
        return self.weight_read + self.weight_write

    @property
    def sums(self) -> int:
        return self.sum_read + self.sum_write


@dataclass(frozen=True)
class Work:
    """What a layer does: multiply-accumulates, cycles of the array, bytes."""

    macs: int
    compute_cycles: int
    traffic: Traffic

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.macs + other.macs,
            self.compute_cycles + other.compute_cycles,
            self.traffic + other.traffic,
        )

    def times(self, count: int) -> "Work":
        return Work(self.macs * count, self.compute_cycles * count, self.traffic.times(count))


@dataclass(frozen=True)
class LayerCost:
    """A layer on a frame. stall_cycles: waited for its DMA; macs: recomputed ones included."""

    layer: str
    macs: int
    compute_cycles: int
    dma_cycles: int
    stall_cycles: int
    traffic: Traffic
    energy: Energy

    @property
    def cycles(self) -> int:
        return self.compute_cycles + self.stall_cycles


@dataclass(frozen=True)
class Step:
    """A tile of layers that run together, and how often it comes; work: of each layer, in order."""

    count: int
    work: tuple[Work, ...]

    @property
    def compute_cycles(self) -> int:
        return sum(work.compute_cycles for work in self.work)

    @property
    def macs(self) -> int:
        return sum(work.macs for work in self.work)


@dataclass(frozen=True)
class Occupancy:
    """Bytes in SRAM while a layer runs: filled by DRAM, emptied by DRAM, between layers."""

    loading: int
    storing: int
    between: int

    @property
    def total(self) -> int:
        return self.loading + self.storing + self.between


@dataclass(frozen=True)
class Phase:
    """Layers that run together, tile by tile.

    fill_cycles: DMA that nothing overlaps. sram: of the largest tile, a value per layer; empty
    where the schedule keeps no account.
    """

    layers: tuple[LayerCost, ...]
    steps: tuple[Step, ...]
    fill_cycles: int
    sram: tuple[Occupancy, ...] = ()

    @property
    def cycles(self) -> int:
        return sum(layer.cycles for layer in self.layers) + self.fill_cycles

    @property
    def compute_cycles(self) -> int:
        return sum(layer.compute_cycles for layer in self.layers)

    @property
    def dma_cycles(self) -> int:
        return sum(layer.dma_cycles for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def traffic(self) -> Traffic:
        return functools.reduce(Traffic.__add__, (layer.traffic for layer in self.layers))


@dataclass(frozen=True)
class FrameCost:
    """A network on a frame of a chip; clock_hz, macs_per_cycle: the chip's.

    sram_bytes: most that is live at a time; None where the schedule places nothing.
    """

    height: int
    width: int
    clock_hz: int
    macs_per_cycle: int
    phases: tuple[Phase, ...]
    sram_bytes: int | None = None

    @property
    def layers(self) -> tuple[LayerCost, ...]:
        return tuple(layer for phase in self.phases for layer in phase.layers)

    @property
    def cycles(self) -> int:
        return sum(phase.cycles for phase in self.phases)

    @property
    def stall_cycles(self) -> int:
        """Cycles in which the array waits."""
        return self.cycles - sum(phase.compute_cycles for phase in self.phases)

    @property
    def seconds(self) -> float:
        return self.cycles / self.clock_hz

    @property
    def frames_per_second(self) -> float:
        return 1 / self.seconds

    @property
    def macs(self) -> int:
        return sum(phase.macs for phase in self.phases)

    @property
    def utilisation(self) -> float:
        """Share of the array's multiply-accumulates that were used, stalls counted."""
        return self.macs / (self.cycles * self.macs_per_cycle)

    @property
    def traffic(self) -> Traffic:
        return functools.reduce(Traffic.__add__, (phase.traffic for phase in self.phases))

    @property
    def energy(self) -> Energy:
        return functools.reduce(Energy.__add__, (layer.energy for layer in self.layers))


def summary(cost: FrameCost) -> dict[str, Any]:
    """The figures of a frame in JSON types."""
    return {
        "height": cost.height,
        "width": cost.width,
        "cycles": cost.cycles,
        "stall_cycles": cost.stall_cycles,
        "milliseconds": 1e3 * cost.seconds,
        "frames_per_second": cost.frames_per_second,
        "utilisation": cost.utilisation,
        "macs": cost.macs,
        "sram_bytes": cost.sram_bytes,
        "dram_bytes": cost.traffic.dram,
        "traffic": asdict(cost.traffic),
        "millijoules": 1e3 * cost.energy.total,
        "energy": {part: 1e3 * joules for part, joules in asdict(cost.energy).items()},
    }


def macs_per_cycle(performance: Performance) -> int:
    """Multiply-accumulates of the whole array in a cycle."""
    return performance.input_lanes * performance.output_lanes * performance.pixel_lanes


class ValueBytes(NamedTuple):
    """Bytes of a value that a layer reads, joins and writes; the image's and the output's are 1."""

    input: int = 1
    join: int = 1
    output: int = 1


BYTES = ValueBytes()


def value_bytes(graph: IntegerGraph, layer: Layer) -> ValueBytes:
    return ValueBytes(*map(graph.value_bytes, (layer.input, layer.join, layer.output)))


def compute_work(
    layer: Layer,
    rows: int,
    columns: int,
    performance: Performance,
    sizes: ValueBytes = BYTES,
) -> Work:
    """A layer on rows x columns positions of its convolution, operands in SRAM.

    For UP the positions are those before the pixel shuffle. A 16-bit input slows the array down to
    `wide_rate`; the weight buffer holds a byte a weight.
    """
    outputs, inputs, kernel, _ = layer.weight.shape
    taps = kernel * kernel
    positions = rows * columns
    blocks = -(-outputs // performance.output_lanes)
    passes = taps * -(-inputs // performance.input_lanes) * blocks * rows
    cycles = passes * -(-columns // performance.pixel_lanes)
    if sizes.input > 1:
        cycles = math.ceil(cycles / performance.wide_rate)
    joined = (
        positions * outputs * sizes.join if layer.join is not None or layer.output is None else 0
    )
    weights_per_pass = performance.input_lanes * performance.output_lanes
    sums = performance.output_lanes * performance.pixel_lanes * ACCUMULATOR_BYTES
    stay = weights_per_pass <= 2 * sums
    return Work(
        macs=positions * int(layer.weight.size),
        compute_cycles=cycles,
        traffic=Traffic(
            sram_read=positions * taps * inputs * blocks * sizes.input + joined,
            sram_write=positions * outputs * sizes.output,
            weight_read=weights_per_pass * (cycles if stay else passes),
            sum_read=0 if stay else sums * cycles,
            sum_write=0 if stay else sums * cycles,
        ),
    )


@functools.lru_cache(maxsize=1024)
def row_burst_bytes(columns: int, stride: int, offset: int, channels: int, burst: int) -> int:
    """Bytes of the bursts that a row of pixels touches, when the row starts at a burst.

    Pixels lie `stride` bytes apart; of each the bytes offset..offset + channels are moved.
    """
    starts = np.arange(columns, dtype=np.int64) * stride + offset
    first, last = starts // burst, (starts + channels - 1) // burst
    shared = int((first[1:] == last[:-1]).sum())
    return (int((last - first + 1).sum()) - shared) * burst


def burst_bytes(size: int, burst: int) -> int:
    """Bytes of the bursts of `size` bytes in a row."""
    return -(-size // burst) * burst


def dma_cycles(moved: int, performance: Performance) -> int:
    """Cycles of the array's clock in which DRAM moves so many bytes, rounded up."""
    return -(-moved * performance.clock_hz // performance.dram_bytes_per_second)


def work_energy(work: Work, performance: Performance) -> Energy:
    """Joules of some work."""
    return energy(
        work.macs,
        work.traffic.sums,
        work.traffic.weights,
        performance.weight_buffer_bytes,
        work.traffic.sram,
        -(-performance.sram_bytes // performance.sram_banks),
        work.traffic.dram,
    )


def phase_cost(names: Sequence[str], steps: Sequence[Step], performance: Performance) -> Phase:
    """Layers that run together: steps in their order, DMA beside the array.

    While the array works on a step, DMA writes what the step before made and reads for the one
    behind; the longer of the two is what the step takes. A stall is shared out among the step's
    layers by their DMA. The first reads and the last writes are the fill.
    """
    reads, writes = (
        [
            dma_cycles(sum(getattr(work.traffic, way) for work in step.work), performance)
            for step in steps
        ]
        for way in ("dram_read", "dram_write")
    )
    stalls = [0] * len(names)
    for index, step in enumerate(steps):
        before = writes[index - 1] if index else 0
        behind = reads[index + 1] if index + 1 < len(steps) else 0
        beside = [before + behind]
        if step.count > 1:
            own = reads[index] + writes[index]
            beside = [before + reads[index], *[own] * (step.count - 2), writes[index] + behind]
        waited = sum(max(0, moved - step.compute_cycles) for moved in beside)
        shares = _shares(waited, [work.traffic.dram for work in step.work])
        stalls = [stall + share for stall, share in zip(stalls, shares, strict=True)]
    layers = []
    for index, (name, stall) in enumerate(zip(names, stalls, strict=True)):
        parts = (step.work[index].times(step.count) for step in steps)
        layers.append(layer_cost(name, functools.reduce(Work.__add__, parts), stall, performance))
    return Phase(tuple(layers), tuple(steps), reads[0] + writes[-1])


def layer_cost(name: str, work: Work, stall_cycles: int, performance: Performance) -> LayerCost:
    """A layer's work on a whole frame, with the cycles of its DMA and its energy."""
    moved = dma_cycles(work.traffic.dram, performance)
    return LayerCost(
        name,
        work.macs,
        work.compute_cycles,
        moved,
        stall_cycles,
        work.traffic,
        work_energy(work, performance),
    )


def _shares(total: int, weights: Sequence[int]) -> Iterator[int]:
    """`total` in whole parts proportional to the weights, equal ones where all are 0."""
    weights = weights if any(weights) else [1] * len(weights)
    given, seen, whole = 0, 0, sum(weights)
    for weight in weights:
        seen += weight
        part = total * seen // whole - given
        given += part
        yield part


def layer_by_layer(graph: IntegerGraph, chip: Chip, height: int, width: int) -> FrameCost:
    """Every layer on the whole frame in turn, every operand once through DRAM: the baseline.

    Activations lie in DRAM as docs/FORMAT.md has them; the overlap is perfect. Raises ValueError
    when a size is not positive.
    """
    check_size("cycles", height, width)
    performance = chip.performance
    phases = []
    for layer in graph.layers:
        rows, columns = convolution_size(graph, layer, height, width)
        work = compute_work(layer, rows, columns, performance, value_bytes(graph, layer))
        moved = _layer_dram(graph, chip, layer, height, width)
        on_chip = Traffic(
            sram_read=moved.dram_write,
            sram_write=moved.dram_read - weight_dram(chip, layer),
            weight_write=weight_transfer(chip, layer),
        )
        work = Work(work.macs, work.compute_cycles, work.traffic + moved + on_chip)
        waited = max(0, dma_cycles(work.traffic.dram, performance) - work.compute_cycles)
        cost = layer_cost(layer.name, work, waited, performance)
        phases.append(Phase((cost,), (Step(1, (work,)),), fill_cycles=0))
    return FrameCost(
        height, width, performance.clock_hz, macs_per_cycle(performance), tuple(phases)
    )


def convolution_size(graph: IntegerGraph, layer: Layer, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a layer's convolution on a frame; for UP before the pixel shuffle."""
    level = graph.buffer(layer.input.buffer).level + layer.op.stride - 1
    return level_size(graph.levels, height, width, level)


def weight_transfer(chip: Chip, layer: Layer) -> int:
    """Bytes of a layer's weights, packed as the chip packs them, and channel numbers, in bursts."""
    burst = chip.performance.dram_burst_bytes
    block = chip.capability.channel_block
    bits = chip.capability.packed_weight_bits(layer.weight_bits)
    stream = -(-blobs.stream_bytes(layer.weight.shape, block) * bits // 8)
    rows = layer.out_channels * channel_bytes(layer)
    return burst_bytes(stream, burst) + burst_bytes(rows, burst)


def weight_dram(chip: Chip, layer: Layer) -> int:
    """The same as they come from DRAM: compressed where the chip has a decoder."""
    if not chip.performance.weight_decoder:
        return weight_transfer(chip, layer)
    burst = chip.performance.dram_burst_bytes
    codes = rice.layer_bytes(layer, chip.capability.channel_block)
    return burst_bytes(codes, burst) + burst_bytes(layer.out_channels * channel_bytes(layer), burst)


def _layer_dram(graph: IntegerGraph, chip: Chip, layer: Layer, height: int, width: int) -> Traffic:
    burst = chip.performance.dram_burst_bytes
    image = burst_bytes(height * width * contract.IMAGE_CHANNELS, burst)

    def moved(view: View | None) -> int:
        if view is None or view.buffer == IMAGE:
            return 0 if view is None else image
        buffer = graph.buffer(view.buffer)
        rows, columns = level_size(graph.levels, height, width, buffer.level)
        size = buffer.bits // 8
        pixel = (buffer.channels * size, view.offset * size, view.channels * size)
        return rows * row_burst_bytes(columns, *pixel, burst)

    tail = layer.output is None
    joined = image if tail else moved(layer.join)
    return Traffic(
        dram_read=moved(layer.input) + joined + weight_dram(chip, layer),
        dram_write=image if tail else moved(layer.output),
    )
