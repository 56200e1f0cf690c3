"""The cycle model against a simulated array, counted bursts and figures worked out by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import TINY, graphs, random_graph

from hls_export import energy
from hls_export.cycles import (
    FrameCost,
    Step,
    Traffic,
    Work,
    burst_bytes,
    compute_work,
    convolution_size,
    dma_cycles,
    layer_by_layer,
    macs_per_cycle,
    phase_cost,
    row_burst_bytes,
    summary,
)
from hls_export.npu import Chip, Performance, load_chip
from hls_export.schedule import schedule
from quant.contract import Op
from quant.integer_graph import IntegerGraph, Layer

REFERENCE = load_chip("reference")


def performance(**changes: int) -> Performance:
    return REFERENCE.performance.model_copy(update=changes)


def chip(**changes: int) -> Chip:
    return REFERENCE.model_copy(update={"performance": performance(**changes)})


def first(graph: IntegerGraph, op: Op) -> Layer:
    return next(layer for layer in graph.layers if layer.op is op)


class Array:
    """An array that runs a layer cycle by cycle and counts what it moves."""

    def __init__(self, layer: Layer, rows: int, columns: int, lanes: Performance) -> None:
        outputs, inputs, kernel, _ = layer.weight.shape
        self.cycles = self.macs = self.weights = self.sums = self.inputs = 0
        stationary_sums = lanes.input_lanes <= 8 * lanes.pixel_lanes
        done = np.zeros((rows, columns, outputs), dtype=np.int64)
        for out_start, row in itertools.product(range(0, outputs, lanes.output_lanes), range(rows)):
            outs = range(out_start, min(outputs, out_start + lanes.output_lanes))
            passes = itertools.product(range(kernel * kernel), range(0, inputs, lanes.input_lanes))
            for _, in_start in passes:
                ins = range(in_start, min(inputs, in_start + lanes.input_lanes))
                if not stationary_sums:
                    self.weights += lanes.input_lanes * lanes.output_lanes
                for start in range(0, columns, lanes.pixel_lanes):
                    pixels = range(start, min(columns, start + lanes.pixel_lanes))
                    self.cycles += 1
                    self.inputs += len(ins) * len(pixels)
                    done[row, start : pixels.stop, outs.start : outs.stop] += len(ins)
                    if stationary_sums:
                        self.weights += lanes.input_lanes * lanes.output_lanes
                    else:
                        self.sums += 4 * lanes.output_lanes * lanes.pixel_lanes
        assert (done == inputs * kernel * kernel).all()
        self.macs = int(done.sum())


@given(
    graphs(max_levels=1, max_width=5),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 20),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_work_is_what_an_array_counts(
    graph: IntegerGraph, rows: int, columns: int, inputs: int, outputs: int, pixels: int
) -> None:
    lanes = performance(input_lanes=inputs, output_lanes=outputs, pixel_lanes=pixels)
    for op in (Op.CONV3X3, Op.CONV3X3_STRIDE2, Op.UP, Op.TAIL):
        layer = first(graph, op)
        work, array = compute_work(layer, rows, columns, lanes), Array(layer, rows, columns, lanes)
        assert (work.compute_cycles, work.macs) == (array.cycles, array.macs)
        assert work.traffic.weight_read == array.weights
        assert work.traffic.sum_read == work.traffic.sum_write == array.sums
        joined = layer.join is not None or op is Op.TAIL
        written = rows * columns * layer.out_channels
        assert work.traffic.sram_read == array.inputs + joined * written
        assert work.traffic.sram_write == written
        assert work.traffic.dram == 0


@given(
    st.integers(1, 40), st.integers(1, 70), st.integers(1, 70), st.integers(1, 70),
    st.sampled_from([1, 8, 16, 64]),
)  # fmt: skip
def test_bursts_of_a_row_are_counted(
    columns: int, stride: int, offset: int, channels: int, burst: int
) -> None:
    stride, offset = max(stride, channels), min(offset, max(stride, channels) - channels)
    touched = {
        (pixel * stride + offset + byte) // burst
        for pixel in range(columns)
        for byte in range(channels)
    }
    assert row_burst_bytes(columns, stride, offset, channels, burst) == burst * len(touched)


def test_bytes_and_cycles_are_rounded_up() -> None:
    assert [burst_bytes(size, 64) for size in (0, 1, 64, 65)] == [0, 64, 64, 128]
    lanes = performance(clock_hz=1_000, dram_bytes_per_second=3_000)
    assert [dma_cycles(size, lanes) for size in (0, 1, 3, 4)] == [0, 1, 1, 2]


@given(graphs(), st.integers(1, 50), st.integers(1, 50), st.integers(1, 10**12))
def test_a_frame_adds_up(graph: IntegerGraph, height: int, width: int, bandwidth: int) -> None:
    used = chip(dram_bytes_per_second=bandwidth)
    cost = layer_by_layer(graph, used, height, width)
    assert [layer.layer for layer in cost.layers] == [layer.name for layer in graph.layers]
    steps = schedule(graph, used.capability.channel_block, height, width)
    for layer, step in zip(cost.layers, steps, strict=True):
        assert layer.macs == step.macs
        assert layer.cycles == max(layer.compute_cycles, layer.dma_cycles)
        assert layer.dma_cycles == dma_cycles(layer.traffic.dram, used.performance)
        assert layer.traffic.dram_read >= step.read_bytes
        assert layer.traffic.dram_write >= step.output_bytes
        assert layer.compute_cycles * macs_per_cycle(used.performance) >= layer.macs
    assert cost.cycles == sum(layer.cycles for layer in cost.layers)
    assert cost.stall_cycles == sum(layer.stall_cycles for layer in cost.layers)
    assert cost.macs == sum(step.macs for step in steps)
    assert 0 < cost.utilisation <= 1
    assert math.isclose(cost.energy.total, sum(layer.energy.total for layer in cost.layers))
    found = summary(cost)
    assert found["dram_bytes"] == cost.traffic.dram_read + cost.traffic.dram_write
    assert math.isclose(found["milliseconds"] * found["frames_per_second"], 1000)


def test_without_bursts_dram_moves_what_the_schedule_says() -> None:
    graph = random_graph(0)
    cost = layer_by_layer(graph, chip(dram_burst_bytes=1), 19, 23)
    for layer, step in zip(cost.layers, schedule(graph, 8, 19, 23), strict=True):
        assert layer.traffic.dram_read == step.read_bytes
        assert layer.traffic.dram_write == step.output_bytes


work = st.builds(
    lambda compute, read, write: Work(
        compute, compute, Traffic(dram_read=read, dram_write=write, sram_read=read)
    ),
    *[st.integers(0, 1000)] * 3,
)


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_dma_of_the_neighbours_runs_beside_a_step(
    layers: int, kinds: int, data: st.DataObject
) -> None:
    lanes = performance(clock_hz=10, dram_bytes_per_second=30)
    steps = [
        Step(data.draw(st.integers(1, 4)), tuple(data.draw(work) for _ in range(layers)))
        for _ in range(kinds)
    ]
    phase = phase_cost([f"layer {index}" for index in range(layers)], steps, lanes)
    tiles = [step for step in steps for _ in range(step.count)]

    def moved(index: int, way: str) -> int:
        if not 0 <= index < len(tiles):
            return 0
        return dma_cycles(sum(getattr(part.traffic, way) for part in tiles[index].work), lanes)

    clock = moved(0, "dram_read")
    for index, tile in enumerate(tiles):
        dma = moved(index - 1, "dram_write") + moved(index + 1, "dram_read")
        clock += max(sum(part.compute_cycles for part in tile.work), dma)
    assert phase.cycles == clock + moved(len(tiles) - 1, "dram_write")
    assert phase.compute_cycles == sum(part.compute_cycles for tile in tiles for part in tile.work)
    for index, layer in enumerate(phase.layers):
        parts = [tile.work[index].traffic for tile in tiles]
        assert layer.traffic == sum(parts[1:], parts[0])
        assert layer.stall_cycles >= 0


def test_sizes_before_the_shuffle_and_behind_the_stride() -> None:
    graph = random_graph(0, TINY)
    sizes = {
        layer.name: convolution_size(graph, layer, 21, 37)
        for layer in graph.layers
        if layer.name in ("head", "encoder.0.down", "decoder.0.up", "tail")
    }
    assert sizes == {
        "head": (22, 38),
        "encoder.0.down": (11, 19),
        "decoder.0.up": (11, 19),
        "tail": (22, 38),
    }


@pytest.mark.parametrize(("height", "width", "name"), [(0, 5, "height"), (5, -1, "width")])
def test_empty_frame_is_refused(height: int, width: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"cycles: {name} must be at least 1"):
        layer_by_layer(random_graph(0), REFERENCE, height, width)


def test_energy_is_the_source_at_its_points() -> None:
    for size, access in energy.SRAM_ACCESS_PJ:
        assert math.isclose(energy.sram_pj_per_byte(size), access / 8)
    between = energy.sram_pj_per_byte(16 << 10)
    assert math.isclose(between, math.sqrt(10 * 20) / 8)
    assert energy.sram_pj_per_byte(4 << 20) > energy.sram_pj_per_byte(1 << 20)
    assert 0 < energy.sram_pj_per_byte(1) < energy.sram_pj_per_byte(8 << 10)
    with pytest.raises(ValueError, match="bank_bytes must be at least 1, got 0"):
        energy.sram_pj_per_byte(0)


def test_energy_of_one_of_everything() -> None:
    spent = energy.energy(1, 1, 1, 8 << 10, 1, 32 << 10, 1)
    picojoules = [round(joules * 1e12, 9) for joules in spent.values()]
    assert picojoules == [0.3, 1.25, 1.25, 2.5, 162.5]
    assert math.isclose((spent + spent).total, 2 * spent.total)


def test_a_faster_dram_never_takes_longer() -> None:
    graph = random_graph(3)
    costs: list[FrameCost] = [
        layer_by_layer(graph, chip(dram_bytes_per_second=rate), 40, 60)
        for rate in (10**8, 10**9, 10**10, 10**12)
    ]
    assert [cost.cycles for cost in costs] == sorted((cost.cycles for cost in costs), reverse=True)
    assert costs[-1].stall_cycles == 0 < costs[0].stall_cycles
