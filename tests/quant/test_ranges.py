"""Ranges of buffers: every integer counted once, at its place."""

import numpy as np
import pytest
from strategies import FORMS, STYLES, Form, Style, random_graph, random_image

from quant import intmath
from quant.integer_graph import IMAGE
from quant.interpret import largest_sums, pad_to_grid, run_traced
from quant.ranges import BINS, buffer_ranges, sum_bits


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("style", STYLES)
def test_every_integer_is_counted_in_its_bin(form: Form, style: Style) -> None:
    graph = random_graph(3, style=style, form=form)
    images = [random_image(seed, *size) for seed, size in enumerate([(9, 14), (16, 8)])]
    held: dict[str, list[np.ndarray]] = {buffer.name: [] for buffer in graph.buffers}
    for image in images:
        held[IMAGE].append(intmath.quantise_image(pad_to_grid(image, graph.grid)).ravel())
        _, trace = run_traced(graph, image)
        for layer in graph.layers:
            if layer.output is not None:
                held[layer.output.buffer].append(trace[layer.name].ravel())
    found = buffer_ranges(graph, images)
    assert [one.name for one in found] == [buffer.name for buffer in graph.buffers]
    for buffer, one in zip(graph.buffers, found, strict=True):
        integers = np.concatenate(held[buffer.name])
        limits = np.iinfo(f"int{buffer.bits}")
        edges = np.arange(BINS + 1) * (2**buffer.bits // BINS) + limits.min
        counts, _ = np.histogram(integers, edges)
        assert list(one.counts) == counts.tolist()
        assert sum(one.counts) == integers.size
        assert one.at_low == np.mean(integers == limits.min)
        assert one.at_high == np.mean(integers == limits.max)
        assert one.exponent == (None if form == "multiplier" else buffer.exponent)
        assert one.real_range == (limits.min * buffer.scale, limits.max * buffer.scale)


@pytest.mark.parametrize("form", FORMS)
def test_sums_reach_their_bits_and_no_more(form: Form) -> None:
    graph = random_graph(3, form=form)
    images = [random_image(0, 12, 20), random_image(1, 9, 8)]
    sums = [largest_sums(graph, image) for image in images]
    for layer in graph.layers:
        bits = sum_bits(graph, images)[layer.name]
        largest = max(found[layer.name] for found in sums)
        assert 1 << (bits - 2) <= largest < 1 << (bits - 1)
        assert bits <= graph.accumulator_bits(layer)


def test_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="images must have at least one, got none"):
        buffer_ranges(random_graph(0), [])
