"""Traffic and work per layer against what the interpreter's arrays hold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import graphs, random_graph, random_image

from hls_export.schedule import saved_by_joins, schedule
from quant import interpret
from quant.integer_graph import IMAGE, IntegerGraph


@given(graphs(), st.integers(1, 24), st.integers(1, 24))
def test_bytes_are_those_of_the_arrays(graph: IntegerGraph, height: int, width: int) -> None:
    steps = schedule(graph, 8, height, width)
    image = height * width * 3
    _, trace = interpret.run_traced(graph, random_image(0, height, width))
    sizes = {IMAGE: dict.fromkeys(range(3), image // 3)}  # buffer -> channel -> bytes
    writers = {IMAGE: dict.fromkeys(range(3), IMAGE)}  # buffer -> channel -> layer
    copied = added = 0
    for layer, step in zip(graph.layers, steps, strict=True):
        assert step.layer == layer.name
        source = sizes[layer.input.buffer]
        assert step.input_bytes == sum(
            source[channel] for channel in range(layer.input.offset, layer.input.end)
        )
        array = trace[layer.name]
        for view in (layer.input, layer.join):  # torch.cat reads and writes each member
            if view is not None:
                read = range(view.offset, view.end)
                if len({writers[view.buffer][channel] for channel in read}) > 1:
                    copied += 2 * sum(sizes[view.buffer][channel] for channel in read)
        if layer.output is None or layer.join is not None:  # the sum's operand, out and in again
            added += 2 * (image if layer.output is None else array.size)
        assert (step.height, step.width) == array.shape[:2]
        if layer.output is None:
            assert step.output_bytes == step.join_bytes == image
        else:
            assert step.output_bytes == array.size
            channels = range(layer.output.offset, layer.output.end)
            plane = array.shape[0] * array.shape[1]
            sizes.setdefault(layer.output.buffer, {}).update(dict.fromkeys(channels, plane))
            written = dict.fromkeys(channels, layer.name)
            writers.setdefault(layer.output.buffer, {}).update(written)
            assert step.join_bytes == (array.size if layer.join is not None else 0)
        outputs, inputs, kernel, _ = layer.weight.shape
        assert step.weight_bytes == math.ceil(outputs / 8) * 8 * inputs * kernel * kernel
        assert step.channel_bytes == 8 * outputs
        assert step.read_bytes == (
            step.input_bytes + step.join_bytes + step.weight_bytes + step.channel_bytes
        )
        assert step.macs == graph.macs(layer, height, width)
    assert saved_by_joins(steps) == {
        "concatenation_bytes": copied,
        "addition_bytes": added,
        "total_bytes": copied + added,
    }
    assert copied > 0
    assert added > 0


def test_head_of_a_full_hd_frame_counted_by_hand() -> None:
    head = schedule(random_graph(0), 8, 1080, 1920)[0]
    assert head.macs == 1080 * 1920 * 4 * 3 * 9
    assert head.input_bytes == 1080 * 1920 * 3
    assert head.output_bytes == 1080 * 1920 * 4
    assert head.weight_bytes == 8 * 3 * 9


@pytest.mark.parametrize(("height", "width", "name"), [(0, 5, "height"), (5, -1, "width")])
def test_empty_frame_is_refused(height: int, width: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"schedule: {name} must be at least 1"):
        schedule(random_graph(0), 8, height, width)
