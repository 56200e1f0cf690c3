"""The golden model against a slow reference in pure Python, one pixel and one product at a time."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from strategies import STYLES, TINY, Style, graphs, images, random_graph, random_image

from quant.contract import Op
from quant.integer_graph import IntegerGraph, Layer
from quant.interpret import pad_to_grid, run, run_traced, shuffle, unshuffle
from quant.intmath import UInt8Array

Read = Callable[[int, int, int], int]


def reference(graph: IntegerGraph, image: UInt8Array) -> dict[str, list[list[list[int]]]]:
    """What each layer writes, as nested lists [y][x][c], by the words of docs/NUMERICS.md."""
    grid = 2**graph.levels
    rows, columns = (-(-size // grid) * grid for size in image.shape[:2])
    pixel = [
        [
            [
                int(image[min(y, image.shape[0] - 1), min(x, image.shape[1] - 1), c])
                for c in range(3)
            ]
            for x in range(columns)
        ]
        for y in range(rows)
    ]
    memory = {("image", y, x, c): pixel[y][x][c] - 128
              for y in range(rows) for x in range(columns) for c in range(3)}  # fmt: skip
    return {
        layer.name: _layer(graph, layer, memory, pixel, rows, columns) for layer in graph.layers
    }


def _layer(
    graph: IntegerGraph,
    layer: Layer,
    memory: dict[tuple[str, int, int, int], int],
    pixel: list[list[list[int]]],
    rows: int,
    columns: int,
) -> list[list[list[int]]]:
    entry = graph.buffer(layer.input.buffer)
    height, width = rows // 2**entry.level, columns // 2**entry.level
    kernel, stride, up = layer.op.kernel, layer.op.stride, layer.op is Op.UP
    outputs, inputs = layer.weight.shape[:2]
    factor = 2 if up else 1
    result = [[[0] * (outputs // factor**2) for _ in range(width // stride * factor)]
              for _ in range(height // stride * factor)]  # fmt: skip
    for y in range(height // stride):
        for x in range(width // stride):
            for o in range(outputs):
                acc = int(layer.bias[o])
                for ky in range(kernel):
                    for kx in range(kernel):
                        source_y = y * stride + ky - kernel // 2
                        source_x = x * stride + kx - kernel // 2
                        if not (0 <= source_y < height and 0 <= source_x < width):
                            continue  # zero padding
                        for i in range(inputs):
                            q = memory[entry.name, source_y, source_x, layer.input.offset + i]
                            acc += q * int(layer.weight[o, i, ky, kx])
                target_y, target_x, target_c = y, x, o
                if up:
                    target_y, target_x, target_c = 2 * y + o % 4 // 2, 2 * x + o % 2, o // 4
                acc_exponent = int(layer.weight_exponent[o]) + entry.exponent
                if layer.join is not None:
                    joined = graph.buffer(layer.join.buffer)
                    r = memory[joined.name, target_y, target_x, layer.join.offset + target_c]
                    acc += r * 2 ** (acc_exponent - joined.exponent)
                assert abs(acc) < 2**31
                if layer.output is None:
                    step = 2 ** (acc_exponent - 7)
                    value = pixel[y][x][o] - (acc + step // 2) // step
                    value = min(max(value, 0), 255)
                else:
                    output = graph.buffer(layer.output.buffer)
                    step = 2 ** (acc_exponent - output.exponent)
                    value = (acc + step // 2) // step
                    value = min(max(value, 0 if layer.relu else -128), 127)
                    memory[output.name, target_y, target_x, layer.output.offset + target_c] = value
                result[target_y][target_x][target_c] = value
    return result


@given(graph=graphs(max_levels=2, max_width=3), image=images(max_side=6))
def test_equals_the_pixel_by_pixel_reference(graph: IntegerGraph, image: UInt8Array) -> None:
    output, trace = run_traced(graph, image)
    expected = reference(graph, image)
    assert list(trace) == [layer.name for layer in graph.layers]
    for name, values in expected.items():
        assert np.array_equal(trace[name], np.array(values)), name
    height, width, _ = image.shape
    assert output.dtype == np.uint8
    assert np.array_equal(output, np.array(expected["tail"])[:height, :width])


@given(graph=graphs(), image=images(max_side=12))
def test_padding_is_replication_of_the_last_row_and_column(
    graph: IntegerGraph, image: UInt8Array
) -> None:
    height, width, _ = image.shape
    padded = pad_to_grid(image, graph.grid)
    rows = np.minimum(np.arange(padded.shape[0]), height - 1)
    columns = np.minimum(np.arange(padded.shape[1]), width - 1)
    assert padded.shape[0] - height < graph.grid
    assert padded.shape[0] % graph.grid == padded.shape[1] % graph.grid == 0
    assert np.array_equal(padded, image[rows][:, columns])
    assert np.array_equal(run(graph, image), run(graph, padded)[:height, :width])


def test_trace_holds_each_view_at_its_own_level() -> None:
    graph = random_graph(1)
    image = random_image(1, 7, 10)
    _, trace = run_traced(graph, image)
    for layer in graph.layers:
        if layer.output is None:
            assert trace[layer.name].shape == (8, 10, 3)
            assert trace[layer.name].dtype == np.uint8
        else:
            level = graph.buffer(layer.output.buffer).level
            assert trace[layer.name].shape == (8 >> level, 10 >> level, layer.output.channels)
            assert trace[layer.name].dtype == np.int8


def test_pixel_shuffle_takes_channel_4c_2dy_dx_to_row_dy_column_dx() -> None:
    q = np.arange(8, dtype=np.int8).reshape(1, 1, 8)  # two output channels
    assert shuffle(q)[:, :, 0].tolist() == [[0, 1], [2, 3]]
    assert shuffle(q)[:, :, 1].tolist() == [[4, 5], [6, 7]]
    q = np.random.default_rng(0).integers(-128, 128, (3, 5, 12)).astype(np.int8)
    assert np.array_equal(unshuffle(shuffle(q)), q)


@pytest.mark.parametrize("style", STYLES)
def test_random_graphs_cover_what_they_say(style: Style) -> None:
    """Natural activations spread; edge cases saturate both ways, die, and tie."""
    saturated_low = saturated_high = zero = total = changed = 0
    for seed in range(8):
        graph = random_graph(seed, TINY, style)
        image = random_image(seed, 24, 24)
        output, trace = run_traced(graph, image)
        changed += int(np.count_nonzero(output != image))
        for name, values in trace.items():
            if name != "tail":
                saturated_low += int(np.count_nonzero(values == -128))
                saturated_high += int(np.count_nonzero(values == 127))
                zero += int(np.count_nonzero(values == 0))
                total += values.size
    assert changed > 0
    if style == "natural":
        assert saturated_low + saturated_high < 0.1 * total
        assert 0.05 * total < zero < 0.5 * total
    else:
        assert min(saturated_low, saturated_high, zero) > 0.05 * total


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError, "array must be uint8, got float32"),
        (np.zeros((4, 4, 3), np.int8), TypeError, "array must be uint8, got int8"),
        ([[[0, 0, 0]]], TypeError, "array must be uint8, got list"),
        (np.zeros((4, 4), np.uint8), ValueError, r"shape must be \(H, W, 3\).*got \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"shape must be.*got \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"H and W from 1, got \(0, 4, 3\)"),
        (np.zeros((4, 0, 3), np.uint8), ValueError, r"H and W from 1, got \(4, 0, 3\)"),
    ],
)
def test_bad_images_are_refused(image: UInt8Array, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(random_graph(0), image)


def test_the_callers_image_is_never_written() -> None:
    image = random_image(3, 8, 8)
    before = image.copy()
    output = run(random_graph(3), image)
    output[...] = 0
    assert np.array_equal(image, before)
