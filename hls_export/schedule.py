"""The layer-by-layer schedule: what each layer computes and moves on a frame.

Layers run in the graph's order, one at a time on the whole frame. Each operand passes the memory
once: weights and channel numbers stay on the chip while a layer runs, the input is read once and
not once per tap. Views move their own channels alone; joining channels moves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hls_export import blobs
from hls_export.group_shape import overlap
from hls_export.memory import cells, check_size, level_size
from hls_export.tables import channel_bytes
from quant import contract
from quant.integer_graph import IMAGE, IntegerGraph, Layer, View


@dataclass(frozen=True)
class Step:
    """One layer on one frame; height, width: pixels of what it writes, padded; sizes in bytes.

    join_bytes: the skip or residual, and for the tail the image. channel_bytes: rows of CHAN.
    concat_saved_bytes: what copying the channels of several layers into the one tensor that is read
    would read and write; views of one buffer copy nothing. add_saved_bytes: what writing the result
    and reading it again for an addition of its own would move; a join is in the accumulator.
    """

    layer: str
    height: int
    width: int
    macs: int
    input_bytes: int
    join_bytes: int
    weight_bytes: int
    channel_bytes: int
    output_bytes: int
    concat_saved_bytes: int
    add_saved_bytes: int

    @property
    def read_bytes(self) -> int:
        return self.input_bytes + self.join_bytes + self.weight_bytes + self.channel_bytes


def schedule(graph: IntegerGraph, channel_block: int, height: int, width: int) -> tuple[Step, ...]:
    """A step per layer on an image of height x width pixels.

    The image and the output have height * width * 3 bytes: their padding is never stored.
    Raises ValueError when a size is not positive.
    """
    check_size("schedule", height, width)
    pixels = cells(graph.levels, height, width) << 2 * graph.levels
    image = height * width * contract.IMAGE_CHANNELS

    def view_bytes(view: View | None) -> int:
        if view is None:
            return 0
        if view.buffer == IMAGE:
            return image
        buffer = graph.buffer(view.buffer)
        return (pixels >> 2 * buffer.level) * view.channels * (buffer.bits // 8)

    def copied(view: View | None) -> int:
        writers = [
            layer
            for layer in graph.layers
            if view is not None and layer.output is not None and overlap(layer.output, view)
        ]
        return 2 * view_bytes(view) if len(writers) > 1 else 0

    def step(layer: Layer) -> Step:
        level = 0 if layer.output is None else graph.buffer(layer.output.buffer).level
        rows, columns = level_size(graph.levels, height, width, level)
        output = image if layer.output is None else view_bytes(layer.output)
        joins = layer.join is not None or layer.output is None
        return Step(
            layer=layer.name,
            height=rows,
            width=columns,
            macs=graph.macs(layer, height, width),
            input_bytes=view_bytes(layer.input),
            join_bytes=image if layer.output is None else view_bytes(layer.join),
            weight_bytes=blobs.stream_bytes(layer.weight.shape, channel_block),
            channel_bytes=layer.out_channels * channel_bytes(layer),
            output_bytes=output,
            concat_saved_bytes=copied(layer.input) + copied(layer.join),
            add_saved_bytes=2 * output if joins else 0,
        )

    return tuple(step(layer) for layer in graph.layers)


def saved_by_joins(steps: Sequence[Step]) -> dict[str, int]:
    """Bytes that a frame does not move because joining channels and adding skips copy nothing."""
    concatenations = sum(step.concat_saved_bytes for step in steps)
    additions = sum(step.add_saved_bytes for step in steps)
    return {
        "concatenation_bytes": concatenations,
        "addition_bytes": additions,
        "total_bytes": concatenations + additions,
    }
