"""Cycles, traffic and energy of a network on a chip, from its layers and its capability file.

The array takes one tap of `input_lanes` input channels, `output_lanes` output channels and
`pixel_lanes` neighbours of a row in a cycle, so a layer on rows x columns takes

    k * k * ceil(I / input_lanes) * ceil(O / output_lanes) * rows * ceil(columns / pixel_lanes)

cycles: what does not fill the lanes is counted. Sums stay in the array until they are whole, so
inputs are read from SRAM once per tap and block of output lanes, weights from the weight buffer
once per row and block of pixel lanes, results are written once. DRAM moves whole bursts. Compute
and DMA overlap (every operand has two buffers): a step takes the longer of the two, and what DMA
takes longer is the stall. On-chip memories keep up with the array by assumption.
"""

import functools
from dataclasses import dataclass

import numpy as np

from hls_export import blobs
from hls_export.energy import Energy, energy
from hls_export.layer_table import ChannelRecord
from hls_export.npu import Chip, Performance
from quant import contract
from quant.integer_graph import IMAGE, IntegerGraph, Layer, View


@dataclass(frozen=True)
class Traffic:
    """Bytes by memory and direction; DRAM in whole bursts."""

    dram_read: int = 0
    dram_write: int = 0
    sram_read: int = 0
    sram_write: int = 0
    weight_read: int = 0
    weight_write: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(one + two for one, two in zip(self.values(), other.values(), strict=True)))

    def times(self, count: int) -> "Traffic":
        """The same `count` times over."""
        return Traffic(*(value * count for value in self.values()))

    def values(self) -> tuple[int, ...]:
        """In the order of the fields."""
        return (
            self.dram_read,
            self.dram_write,
            self.sram_read,
            self.sram_write,
            self.weight_read,
            self.weight_write,
        )

    @property
    def dram(self) -> int:
        return self.dram_read + self.dram_write

    @property
    def sram(self) -> int:
        return self.sram_read + self.sram_write

    @property
    def weights(self) -> int:
        return self.weight_read + self.weight_write


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
class FrameCost:
    """A network on a frame of a chip.

    clock_hz, macs_per_cycle: the chip's. fill_cycles: DMA that nothing overlaps, before the first
    and behind the last step of what runs together.
    """

    height: int
    width: int
    clock_hz: int
    macs_per_cycle: int
    layers: tuple[LayerCost, ...]
    fill_cycles: int

    @property
    def cycles(self) -> int:
        return sum(layer.cycles for layer in self.layers) + self.fill_cycles

    @property
    def seconds(self) -> float:
        return self.cycles / self.clock_hz

    @property
    def frames_per_second(self) -> float:
        return 1 / self.seconds

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def utilisation(self) -> float:
        """Share of the array's multiply-accumulates that were used, stalls counted."""
        return self.macs / (self.cycles * self.macs_per_cycle)

    @property
    def traffic(self) -> Traffic:
        return functools.reduce(Traffic.__add__, (layer.traffic for layer in self.layers))

    @property
    def energy(self) -> Energy:
        return functools.reduce(Energy.__add__, (layer.energy for layer in self.layers))


def macs_per_cycle(performance: Performance) -> int:
    """Multiply-accumulates of the whole array in a cycle."""
    return performance.input_lanes * performance.output_lanes * performance.pixel_lanes


def compute_work(layer: Layer, rows: int, columns: int, performance: Performance) -> Work:
    """A layer on rows x columns positions of its convolution, operands in SRAM.

    For UP the positions are those before the pixel shuffle.
    """
    outputs, inputs, kernel, _ = layer.weight.shape
    taps = kernel * kernel
    positions = rows * columns
    blocks = -(-outputs // performance.output_lanes)
    pixels = rows * -(-columns // performance.pixel_lanes)
    joined = positions * outputs if layer.join is not None or layer.output is None else 0
    return Work(
        macs=positions * int(layer.weight.size),
        compute_cycles=taps * -(-inputs // performance.input_lanes) * blocks * pixels,
        traffic=Traffic(
            sram_read=positions * taps * inputs * blocks + joined,
            sram_write=positions * outputs,
            weight_read=pixels * taps * inputs * blocks * performance.output_lanes,
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
        work.traffic.weights,
        performance.weight_buffer_bytes,
        work.traffic.sram,
        -(-performance.sram_bytes // performance.sram_banks),
        work.traffic.dram,
    )


def layer_cost(name: str, work: Work, stall_cycles: int, performance: Performance) -> LayerCost:
    """A layer's work on a whole frame with its DMA's cycles and energy."""
    return LayerCost(
        name,
        work.macs,
        work.compute_cycles,
        dma_cycles(work.traffic.dram, performance),
        stall_cycles,
        work.traffic,
        work_energy(work, performance),
    )


def layer_by_layer(graph: IntegerGraph, chip: Chip, height: int, width: int) -> FrameCost:
    """Every layer on the whole frame in turn, every operand once through DRAM: the baseline.

    Activations lie in DRAM as docs/FORMAT.md has them. Raises ValueError when a size is not
    positive.
    """
    for side, size in (("height", height), ("width", width)):
        if size < 1:
            raise ValueError(f"cycles: {side} must be at least 1, got {size}")
    performance = chip.performance
    costs = []
    for layer in graph.layers:
        rows, columns = convolution_size(graph, layer, height, width)
        work = compute_work(layer, rows, columns, performance)
        moved = _layer_dram(graph, chip, layer, height, width)
        on_chip = Traffic(
            sram_read=moved.dram_write,
            sram_write=moved.dram_read - _weights(chip, layer),
            weight_write=_weights(chip, layer),
        )
        work = Work(work.macs, work.compute_cycles, work.traffic + moved + on_chip)
        waited = dma_cycles(work.traffic.dram, performance) - work.compute_cycles
        costs.append(layer_cost(layer.name, work, max(0, waited), performance))
    return FrameCost(
        height, width, performance.clock_hz, macs_per_cycle(performance), tuple(costs), 0
    )


def convolution_size(graph: IntegerGraph, layer: Layer, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a layer's convolution on a frame; for UP before the pixel shuffle."""
    level = graph.buffer(layer.input.buffer).level + layer.op.stride - 1
    rows, columns = (-(-size // graph.grid) * graph.grid >> level for size in (height, width))
    return rows, columns


def _weights(chip: Chip, layer: Layer) -> int:
    """Bytes of a layer's weights and channel numbers, in whole bursts."""
    burst = chip.performance.dram_burst_bytes
    block = chip.capability.channel_block
    stream = blobs.stream_bytes(layer.weight.shape, block)
    rows = layer.out_channels * ChannelRecord.SIZE
    return burst_bytes(stream, burst) + burst_bytes(rows, burst)


def _layer_dram(graph: IntegerGraph, chip: Chip, layer: Layer, height: int, width: int) -> Traffic:
    burst = chip.performance.dram_burst_bytes
    image = burst_bytes(height * width * contract.IMAGE_CHANNELS, burst)

    def view_bytes(view: View | None) -> int:
        if view is None:
            return 0
        if view.buffer == IMAGE:
            return image
        buffer = graph.buffer(view.buffer)
        rows, columns = (
            -(-size // graph.grid) * graph.grid >> buffer.level for size in (height, width)
        )
        return rows * row_burst_bytes(columns, buffer.channels, view.offset, view.channels, burst)

    tail = layer.output is None
    joined = image if tail else view_bytes(layer.join)
    return Traffic(
        dram_read=view_bytes(layer.input) + joined + _weights(chip, layer),
        dram_write=image if tail else view_bytes(layer.output),
    )
