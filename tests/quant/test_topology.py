"""Topology: the shapes it lays out chain, and fill every buffer once before it is read."""

import pytest
from hypothesis import given
from strategies import EDGE, TINY, topologies

from quant import contract
from quant.contract import Op
from quant.integer_graph import IMAGE
from quant.topology import Topology, blocks, buffer_shapes, layer_shapes


def test_layers_of_one_level_in_execution_order() -> None:
    """The whole list for widths (4, 6) and growths (2, 3), written out."""
    dense = ["dense.conv1", "dense.conv2", "dense.conv3", "dense.fuse"]
    assert [shape.name for shape in layer_shapes(TINY)] == [
        "head",
        *(f"encoder.0.{name}" for name in dense),
        "encoder.0.down",
        *(f"middle.{name}" for name in dense),
        "decoder.0.up",
        *(f"decoder.0.{name}" for name in dense),
        "second",
        "tail",
    ]
    weights = {shape.name: shape.weight_shape for shape in layer_shapes(TINY)}
    assert weights["head"] == (4, 3, 3, 3)
    assert [weights[f"encoder.0.{name}"] for name in dense] == [
        (2, 4, 3, 3),
        (2, 6, 3, 3),
        (2, 8, 3, 3),
        (4, 10, 1, 1),
    ]
    assert weights["encoder.0.down"] == (6, 4, 3, 3)
    assert weights["middle.dense.conv3"] == (3, 12, 3, 3)
    assert weights["decoder.0.up"] == (16, 6, 1, 1)
    assert weights["second"] == (4, 4, 3, 3)
    assert weights["tail"] == (3, 4, 3, 3)


def test_deeper_blocks_are_visited_down_and_back_up() -> None:
    assert list(blocks(EDGE)) == [
        ("encoder.0", 0),
        ("encoder.1", 1),
        ("middle", 2),
        ("decoder.1", 1),
        ("decoder.0", 0),
    ]


@given(topology=topologies())
def test_every_buffer_is_filled_exactly_once_and_before_it_is_read(topology: Topology) -> None:
    channels = {name: count for name, count, _ in buffer_shapes(topology)}
    written = {name: [False] * count for name, count in channels.items()}
    written[IMAGE] = [True] * contract.IMAGE_CHANNELS
    for shape in layer_shapes(topology):
        for view in (shape.input, shape.join):
            if view is not None:
                assert all(written[view.buffer][view.offset : view.end]), shape.name
        if shape.output is not None:
            region = written[shape.output.buffer]
            assert not any(region[shape.output.offset : shape.output.end]), shape.name
            region[shape.output.offset : shape.output.end] = [True] * shape.output.channels
    assert all(all(region) for region in written.values())


@given(topology=topologies())
def test_layers_meet_at_the_right_level_and_width(topology: Topology) -> None:
    shapes = list(layer_shapes(topology))
    levels = {name: level for name, _, level in buffer_shapes(topology)}
    assert len(shapes) == 3 + 10 * topology.levels + 4
    assert len({shape.name for shape in shapes}) == len(shapes)
    for shape in shapes:
        if shape.output is None:
            assert shape is shapes[-1]
            continue
        step = {Op.CONV3X3_STRIDE2: 1, Op.UP: -1}.get(shape.op, 0)
        assert levels[shape.output.buffer] == levels[shape.input.buffer] + step
        if shape.join is not None:
            assert levels[shape.join.buffer] == levels[shape.output.buffer]
            assert shape.join.channels == shape.output.channels


@given(topology=topologies())
def test_joins_are_the_residuals_the_skips_and_the_outer_add(topology: Topology) -> None:
    joins = {shape.name: shape.join for shape in layer_shapes(topology) if shape.join is not None}
    residual = {f"{name}.dense.fuse": f"{name}.dense" for name, _ in blocks(topology)}
    skips = {f"decoder.{level}.up": f"encoder.{level}.out" for level in range(topology.levels)}
    expected = {**residual, **skips, "second": "encoder.0.dense"}
    assert {name: view.buffer for name, view in joins.items()} == expected
    assert all(view.offset == 0 for view in joins.values())


@given(topology=topologies())
def test_only_the_growth_convolutions_are_rectified(topology: Topology) -> None:
    for shape in layer_shapes(topology):
        assert shape.relu == (shape.name.rsplit(".")[-1] in {"conv1", "conv2", "conv3"})


@pytest.mark.parametrize(
    ("widths", "growths", "message"),
    [
        ((4,), (2,), r"widths must be 2\.\.7 positive numbers, got \(4,\)"),
        ((4,) * 8, (2,) * 8, r"widths must be 2\.\.7 positive numbers"),
        ((4, 0), (2, 2), r"widths must be .* got \(4, 0\)"),
        ((4, 4), (2, -1), r"growths must be .* got \(2, -1\)"),
        ((4, 4), (2, 2, 2), r"growths must match the 2 widths, got \(2, 2, 2\)"),
    ],
)
def test_bad_widths_are_refused(
    widths: tuple[int, ...], growths: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Topology(widths, growths)
