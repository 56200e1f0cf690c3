"""The layer-by-layer schedule: what each layer computes and moves on a frame.

Layers run in the graph's order, one at a time on the whole frame. Each operand passes the memory
once: weights and channel numbers stay on the chip while a layer runs, the input is read once and
not once per tap. Views move their own channels alone; joining channels moves nothing.
"""

from dataclasses import dataclass

from hls_export import blobs
from hls_export.memory import cells, check_size, level_size
from hls_export.tables import channel_bytes
from quant import contract
from quant.integer_graph import IMAGE, IntegerGraph, Layer, View


@dataclass(frozen=True)
class Step:
    """One layer on one frame; height, width: pixels of what it writes, padded; sizes in bytes.

    join_bytes: the skip or residual, and for the tail the image. channel_bytes: rows of CHAN.
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

    def step(layer: Layer) -> Step:
        level = 0 if layer.output is None else graph.buffer(layer.output.buffer).level
        rows, columns = level_size(graph.levels, height, width, level)
        return Step(
            layer=layer.name,
            height=rows,
            width=columns,
            macs=graph.macs(layer, height, width),
            input_bytes=view_bytes(layer.input),
            join_bytes=image if layer.output is None else view_bytes(layer.join),
            weight_bytes=blobs.stream_bytes(layer.weight.shape, channel_block),
            channel_bytes=layer.out_channels * channel_bytes(layer),
            output_bytes=image if layer.output is None else view_bytes(layer.output),
        )

    return tuple(step(layer) for layer in graph.layers)
