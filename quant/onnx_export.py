"""An IntegerGraph as ONNX, in three forms, all with the integers of the golden model.

integer   standard operators on integers alone: ConvInteger, int32 sums, floor division. Exact for
          every graph and image. 16-bit activations and multiplier arithmetic need int64 sums.
qcdq      float convolutions between QuantizeLinear, Clip and DequantizeLinear: what quantisers of
          other tools write and engines fuse.
qonnx     float convolutions between QONNX's Quant nodes, for hls4ml, FINN and the like.

`integer` and `qcdq` take and give uint8 [N, 3, H, W] of any size: padding to the grid is part of
the graph. `qonnx` takes and gives whole numbers 0..255 in float32, H and W multiples of the grid.

ONNX rounds halves to even, the contract rounds them up. So in `qcdq` and `qonnx` a bias b is
carried as 4 b + 1 at a quarter of the accumulator's step: no sum is a tie any more, and none that
was no tie moves to another integer. float32 holds such sums exactly while |acc| < FLOAT_SUMS;
`quant.interpret.largest_sums` tells what an image reaches. Beyond it only `integer` keeps the bits.

    python -m quant.onnx_export runs/qat-edge/graph.json edge.onnx --form integer
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Final, Literal, get_args

import click
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from quant import contract
from quant.contract import Op
from quant.graph_files import load_graph
from quant.integer_graph import IMAGE, IntegerGraph, Layer, View
from starlight.errors import OneLineErrors
from starlight.files import write_atomically

Form = Literal["integer", "qcdq", "qonnx"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)
INPUT, OUTPUT = "image", "denoised"
OPSET, IR_VERSION = 19, 9
QONNX = "qonnx.custom_op.general"
FLOAT_SUMS: Final = 2**22  # in quarters they take float32's 24 bits
_INT32 = np.iinfo(np.int32)


def to_onnx(graph: IntegerGraph, form: Form = "integer") -> onnx.ModelProto:
    """The graph as a checked model.

    Raises ValueError for a form or a bias that does not fit, and in the float forms for 16-bit
    buffers and multiplier arithmetic, whose sums float32 does not hold.
    """
    if form not in FORMS:
        raise ValueError(f"onnx export: form must be one of {', '.join(FORMS)}, got {form!r}")
    if form != "integer":
        _check_float_form(graph, form)
    writer: _Writer = _Integers(graph) if form == "integer" else _Floats(graph, form == "qonnx")
    return writer.model()


def _check_float_form(graph: IntegerGraph, form: Form) -> None:
    if not graph.dyadic:
        raise ValueError(
            f"onnx export: the arithmetic of form {form} must be dyadic, got {graph.arithmetic}; "
            "take the form integer"
        )
    for buffer in graph.buffers:
        if buffer.bits != contract.ACTIVATION_BITS:
            raise ValueError(
                f"onnx export, buffer {buffer.name}: bits must be {contract.ACTIVATION_BITS} in "
                f"form {form}, got {buffer.bits}; take the form integer"
            )


class _Writer:
    """Nodes and constants so far, and which tensors hold the channels of each buffer."""

    element = TensorProto.UINT8
    domains: tuple[onnx.OperatorSetIdProto, ...] = (helper.make_opsetid("", OPSET),)

    def __init__(self, graph: IntegerGraph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.written: dict[str, list[tuple[int, str]]] = {}  # buffer -> (first channel, tensor)
        self._numbers = itertools.count()

    def model(self) -> onnx.ModelProto:
        padded, size = self.padded()
        self.written[IMAGE] = [(0, self.activations_of(padded))]
        for layer in self.graph.layers:
            if layer.output is not None:
                place = self.written.setdefault(layer.output.buffer, [])
                place.append((layer.output.offset, self.layer(layer)))
                place.sort()
            else:
                self.unpad(self.tail(layer, padded), size)
        free = self.graph.grid if size is None else 1
        shape: list[str | int | None] = [
            "N",
            contract.IMAGE_CHANNELS,
            *(f"{free} {d}" if free > 1 else d for d in "HW"),
        ]
        image, denoised = (
            helper.make_tensor_value_info(name, self.element, shape) for name in (INPUT, OUTPUT)
        )
        model = helper.make_model(
            helper.make_graph(self.nodes, self.graph.name, [image], [denoised], self.constants),
            opset_imports=self.domains,
            ir_version=IR_VERSION,
            producer_name="starlight",
        )
        onnx.checker.check_model(model, full_check=self.element == TensorProto.UINT8)
        return model

    def activations_of(self, padded: str) -> str:
        """Image -> what convolutions read."""
        raise NotImplementedError

    def layer(self, layer: Layer) -> str:
        """What the layer writes into its output view."""
        raise NotImplementedError

    def tail(self, layer: Layer, padded: str) -> str:
        """The padded output image."""
        raise NotImplementedError

    def constant(self, values: NDArray[Any]) -> str:
        name = f"constant_{next(self._numbers)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node; returns its output."""
        output = output or f"{op}_{next(self._numbers)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def cast(self, tensor: str, to: int, output: str | None = None) -> str:
        return self.add("Cast", tensor, to=to, output=output)

    def padded(self) -> tuple[str, str | None]:
        """The image, last row and column repeated up to the grid; and its own (H, W)."""
        size = self.add("Shape", INPUT, start=2)
        grid = self.constant(np.array(self.graph.grid, np.int64))
        ends = self.add("Mod", self.add("Neg", size), grid)  # takes the sign of the divisor
        pads = self.add("Concat", self.constant(np.zeros(6, np.int64)), ends, axis=0)
        return self.add("Pad", INPUT, pads, mode="edge"), size

    def unpad(self, tensor: str, size: str | None) -> None:
        if size is None:
            self.add("Identity", tensor, output=OUTPUT)
            return
        starts, axes = (self.constant(np.array(v, np.int64)) for v in ((0, 0), (2, 3)))
        self.add("Slice", tensor, starts, size, axes, output=OUTPUT)

    def read(self, view: View) -> str:
        """The channels of a view, joined from what was written."""
        parts = []
        places = self.written[view.buffer]
        ends = [first for first, _ in places[1:]] + [self.graph.buffer(view.buffer).channels]
        for (first, tensor), end in zip(places, ends, strict=True):
            low, high = max(first, view.offset), min(end, view.end)
            if low >= high:
                continue
            if (low, high) != (first, end):
                bounds = ([low - first], [high - first], [1])
                tensor = self.add(
                    "Slice", tensor, *(self.constant(np.array(v, np.int64)) for v in bounds)
                )
            parts.append(tensor)
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=1)

    def window(self, layer: Layer) -> dict[str, Any]:
        """Attributes of the layer's convolution."""
        kernel, stride = layer.op.kernel, layer.op.stride
        return {
            "kernel_shape": [kernel] * 2,
            "pads": [kernel // 2] * 4,
            "strides": [stride] * 2,
        }


class _Integers(_Writer):
    """Activations of 8 bits are int8, of 16 int32, for which more operators are implemented.

    Sums are int32 where the graph's proof covers all that is added to them: dyadic arithmetic on
    8-bit inputs. Elsewhere they are int64.
    """

    def activations_of(self, padded: str) -> str:
        offset = self.constant(np.array(contract.IMAGE_OFFSET, np.int32))
        moved = self.add("Sub", self.cast(padded, TensorProto.INT32), offset)
        return self.cast(moved, TensorProto.INT8)

    def layer(self, layer: Layer) -> str:
        assert layer.output is not None
        bits = self.graph.buffer(layer.output.buffer).bits
        low, high = contract.activation_range(bits)
        ends = (self.number(layer, v) for v in (0 if layer.relu else low, high))
        clipped = self.add("Clip", self.rounded(layer), *ends)
        if layer.op is Op.UP:
            # onnxruntime has no DepthToSpace of integers; float32 holds these exactly.
            floats = self.cast(clipped, TensorProto.FLOAT)
            clipped = self.add("DepthToSpace", floats, blocksize=2, mode="CRD")
        narrow = bits == contract.ACTIVATION_BITS
        return self.cast(clipped, TensorProto.INT8 if narrow else TensorProto.INT32)

    def tail(self, layer: Layer, padded: str) -> str:
        pixels = self.as_sums(layer, self.cast(padded, TensorProto.INT32))
        ends = (self.number(layer, v) for v in (0, contract.PIXEL_MAX))
        clean = self.add("Clip", self.add("Sub", pixels, self.rounded(layer)), *ends)
        return self.cast(clean, TensorProto.UINT8)

    def rounded(self, layer: Layer) -> str:
        """floor((M acc + R join + 2^(n-1)) / 2^n).

        Div cuts toward zero, so for negative n: floor(n / d) = -1 - (-1 - n) / d.
        """
        multiplier, factor, shift = self.graph.requantisation(layer)
        n = self.sums(layer)
        if not self.graph.dyadic:
            n = self.add("Mul", n, self.row(layer, multiplier))
        start = multiplier * layer.bias.astype(np.int64) + (1 << shift - 1)
        n = self.add("Add", n, self.row(layer, start))
        if layer.join is not None:
            joined = self.as_sums(layer, self.joined(layer, layer.join))
            n = self.add("Add", n, self.add("Mul", joined, self.row(layer, factor)))
        minus_one = self.number(layer, -1)
        negative = self.add("Less", n, self.number(layer, 0))
        mirrored = self.add("Sub", minus_one, n)
        divisor = self.row(layer, 1 << shift)
        quotient = self.add("Div", self.add("Where", negative, mirrored, n), divisor)
        return self.add("Where", negative, self.add("Sub", minus_one, quotient), quotient)

    def sums(self, layer: Layer) -> str:
        """The convolution without bias; of 16 bits, by high and low bytes."""
        weight = self.constant(layer.weight.astype(np.int8))
        x = self.read(layer.input)
        if self.graph.buffer(layer.input.buffer).bits == contract.ACTIVATION_BITS:
            acc = self.add("ConvInteger", x, weight, **self.window(layer))
            return self.as_sums(layer, acc)
        base = self.constant(np.array(256, np.int32))
        low = self.add("Mod", x, base)  # takes the sign of the divisor
        high = self.add("Div", self.add("Sub", x, low), base)
        parts = (self.cast(high, TensorProto.INT8), self.cast(low, TensorProto.UINT8))
        coarse, fine = (
            self.as_sums(layer, self.add("ConvInteger", part, weight, **self.window(layer)))
            for part in parts
        )
        return self.add("Add", self.add("Mul", coarse, self.number(layer, 256)), fine)

    def sum_dtype(self, layer: Layer) -> type[np.int32] | type[np.int64]:
        bits = self.graph.buffer(layer.input.buffer).bits
        return np.int32 if self.graph.dyadic and bits == contract.ACTIVATION_BITS else np.int64

    def as_sums(self, layer: Layer, tensor: str) -> str:
        return self.cast(tensor, TensorProto.INT64) if self.sum_dtype(layer) is np.int64 else tensor

    def number(self, layer: Layer, value: int) -> str:
        return self.constant(np.array(value, self.sum_dtype(layer)))

    def row(self, layer: Layer, values: NDArray[Any]) -> str:
        """[O] against a map."""
        return self.constant(values.astype(self.sum_dtype(layer)).reshape(1, -1, 1, 1))

    def joined(self, layer: Layer, view: View) -> str:
        """What is added to the sums, in int32; before the shuffle for UP."""
        tensor = self.read(view)
        if layer.op is Op.UP:
            # SpaceToDepth puts value (dy, dx) of channel c to (2 dy + dx) C + c; ours is 4 c + ...
            blocks = self.add("SpaceToDepth", self.cast(tensor, TensorProto.FLOAT), blocksize=2)
            order = np.arange(4 * view.channels).reshape(4, view.channels).T.ravel()
            tensor = self.add("Gather", blocks, self.constant(order), axis=1)
        return self.cast(tensor, TensorProto.INT32)


class _Floats(_Writer):
    """Activations are the real values q 2^-e in float32, rounded where the graph rounds."""

    def __init__(self, graph: IntegerGraph, qonnx: bool) -> None:
        super().__init__(graph)
        self.qonnx = qonnx
        if qonnx:
            self.element = TensorProto.FLOAT
            self.domains = (*self.domains, helper.make_opsetid(QONNX, 1))

    def padded(self) -> tuple[str, str | None]:
        return (INPUT, None) if self.qonnx else super().padded()

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def quant(self, values: str, scale: NDArray[Any], narrow: bool = False) -> str:
        """QONNX's Quant: 8 bits, signed, zero point 0, halves to even."""
        numbers = (self.constant(scale.astype(np.float32)), self.scalar(0.0), self.scalar(8.0))
        options: dict[str, Any] = {"signed": 1, "narrow": int(narrow), "rounding_mode": "ROUND"}
        return self.add("Quant", values, *numbers, domain=QONNX, **options)

    def rounded(self, values: str, exponent: int, relu: bool = False) -> str:
        """Real values on the grid of an activation."""
        scale = np.array(2.0**-exponent)
        if self.qonnx:
            return self.quant(self.add("Relu", values) if relu else values, scale)
        numbers = self.constant(scale.astype(np.float32)), self.constant(np.array(0, np.int8))
        q = self.add("QuantizeLinear", values, *numbers)
        # Also where it clips nothing: without it OpenVINO 2026.4 pads signed maps with another
        # value than zero.
        low = 0 if relu else contract.ACTIVATION_MIN
        ends = (self.constant(np.array(v, np.int8)) for v in (low, contract.ACTIVATION_MAX))
        return self.add("DequantizeLinear", self.add("Clip", q, *ends), *numbers)

    def activations_of(self, padded: str) -> str:
        scale, offset = 2.0**-contract.IMAGE_EXPONENT, contract.IMAGE_OFFSET
        if self.qonnx:
            moved = self.add("Sub", padded, self.scalar(offset))
            return self.rounded(self.add("Mul", moved, self.scalar(scale)), contract.IMAGE_EXPONENT)
        zero = self.constant(np.array(offset, np.uint8))
        return self.add("DequantizeLinear", padded, self.scalar(scale), zero)

    def convolved(self, layer: Layer) -> str:
        """The real value of a quarter of a step above the accumulator, without the join."""
        scale = 2.0 ** -layer.weight_exponent.astype(np.float64)
        quarters = 4 * layer.bias.astype(np.int64) + 1
        if np.abs(quarters).max() > _INT32.max:
            raise ValueError(
                f"onnx export, layer {layer.name}: |bias| must be below 2^29 for qcdq and "
                f"qonnx, got {np.abs(layer.bias).max()}; take the form integer"
            )
        bias_scale = 2.0 ** -(self.graph.accumulator_exponent(layer).astype(np.float64) + 2)
        if self.qonnx:
            real = layer.weight * scale.reshape(-1, 1, 1, 1)
            values = self.constant(real.astype(np.float32))
            weight = self.quant(values, scale.reshape(-1, 1, 1, 1), narrow=True)
            bias = self.constant((quarters * bias_scale).astype(np.float32))
        else:
            weight = self.dequantised(layer.weight.astype(np.int8), scale)
            bias = self.dequantised(quarters.astype(np.int32), bias_scale)
        return self.add("Conv", self.read(layer.input), weight, bias, **self.window(layer))

    def dequantised(self, values: NDArray[Any], scale: NDArray[Any]) -> str:
        """values [O, ...] times scale [O]."""
        scales = self.constant(scale.astype(np.float32))
        zeros = self.constant(np.zeros(len(scale), values.dtype))
        return self.add("DequantizeLinear", self.constant(values), scales, zeros, axis=0)

    def layer(self, layer: Layer) -> str:
        assert layer.output is not None
        sums = self.convolved(layer)
        if layer.op is Op.UP:
            sums = self.add("DepthToSpace", sums, blocksize=2, mode="CRD")
        if layer.join is not None:
            sums = self.add("Add", sums, self.read(layer.join))
        exponent = self.graph.buffer(layer.output.buffer).exponent
        return self.rounded(sums, exponent, layer.relu)

    def tail(self, layer: Layer, padded: str) -> str:
        """The residual is wider than a byte: floor(x + 1/2) in place of a quantiser."""
        pixels = self.add("Mul", self.convolved(layer), self.scalar(2.0**contract.IMAGE_EXPONENT))
        noise = self.add("Floor", self.add("Add", pixels, self.scalar(0.5)))
        image = padded if self.qonnx else self.cast(padded, TensorProto.FLOAT)
        bounds = self.scalar(0.0), self.scalar(contract.PIXEL_MAX)
        clean = self.add("Clip", self.add("Sub", image, noise), *bounds)
        return clean if self.qonnx else self.cast(clean, TensorProto.UINT8)


@click.command(cls=OneLineErrors)
@click.argument("graph", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--form", type=click.Choice(FORMS), default="integer", show_default=True)
def main(graph: Path, out: Path, form: Form) -> None:
    """Write the saved GRAPH (graph.json of a run of quant.qat) as the ONNX file OUT."""
    model = to_onnx(load_graph(graph), form)
    data = model.SerializeToString()
    write_atomically(out, data)
    click.echo(f"{out}: form {form}, {len(model.graph.node)} nodes, {len(data)} bytes")


if __name__ == "__main__":
    main()
