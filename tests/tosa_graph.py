"""An IntegerGraph as a serialised TOSA graph, run in the TOSA reference model.

TOSA is the operator set that compilers of NPUs meet in; its specification defines integers to the
bit, and Arm's reference model executes it. Padding, sums, joins, roundings, saturation, shuffles
and the subtraction are the model's here; nothing of `quant.intmath` computes. Maps are [1, height,
width, channels], weights [output, ky, kx, input].

The one rounding of a layer is lowered in one of two ways:

rescale: RESCALE with SINGLE_ROUND, floor((acc * 2^30 + 2^(s+29)) / 2^(s+30)), saturated to the
    output. The operator demands |acc| < 2^(s+29): a layer whose proven bound exceeds that (s = 1)
    is lowered as `shift`. So is every layer of a multiplier graph: RESCALE rounds once per operand,
    the contract once for sum and join together.
shift: in 64 bits (TOSA 1.1), MUL by M and R, ADD, ARITHMETIC_RIGHT_SHIFT by n with rounding. Dyadic
    is the case M = 1, R = 2^j, n = s.

A 16-bit input makes CONV2D sum in 48 bits; by the graph's proof the sums fit the 32 that follow.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import tosa_reference_model
import tosa_serializer
from tosa_serializer import DType, NanPropagationMode, RoundingMode

from quant import contract
from quant.contract import Op
from quant.integer_graph import IMAGE, IntegerGraph, Layer, View
from quant.interpret import Trace
from quant.intmath import UInt8Array

Lowering = Literal["rescale", "shift"]
LOWERINGS: tuple[Lowering, ...] = get_args(Lowering)
PIXELS = "pixels"
INT8, INT16, INT32, INT48, INT64 = DType.INT8, DType.INT16, DType.INT32, DType.INT48, DType.INT64
MULTIPLIER_LOG2 = {INT48: 14}  # the largest power of two that RESCALE multiplies by; else 30


class Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    dtype: Any


def run_traced(
    graph: IntegerGraph,
    image: UInt8Array,
    lowering: Lowering = "rescale",
    rounding: Any = RoundingMode.SINGLE_ROUND,
) -> tuple[UInt8Array, Trace]:
    """What `quant.interpret.run_traced` returns, by the reference model.

    rounding: of RESCALE; any other than SINGLE_ROUND breaks the contract. Raises RuntimeError
    unless the model calls the run valid: an operator left the range in which TOSA defines it.
    """
    writer = _Writer(graph, lowering, rounding)
    height, width, _ = image.shape
    names = writer.write(height, width)
    given = np.ascontiguousarray(image[None]).view(np.int8)
    outputs, status = tosa_reference_model.run(writer.file.serialize(), [given])
    if status != tosa_reference_model.GraphStatus.TOSA_VALID:
        raise RuntimeError(f"graph {graph.name}: TOSA status must be TOSA_VALID, got {status.name}")
    denoised, *maps = (output[0] for output in outputs)
    trace: Trace = dict(zip(names, maps, strict=True))
    trace[names[-1]] = maps[-1].view(np.uint8)
    return denoised.view(np.uint8), trace


class _Writer:
    """Operators so far, and which tensors hold the channels of each buffer."""

    def __init__(self, graph: IntegerGraph, lowering: Lowering, rounding: Any) -> None:
        self.graph = graph
        self.lowering = lowering
        self.rounding = rounding
        self.file = tosa_serializer.TosaSerializer()
        self.written: dict[str, list[tuple[int, Tensor]]] = {}  # buffer -> (first channel, tensor)

    def write(self, height: int, width: int) -> list[str]:
        """Outputs: the image of this size, then each layer's. Returns the layers' names."""
        shape = (1, height, width, contract.IMAGE_CHANNELS)
        self.file.addInputTensor(tosa_serializer.TosaSerializerTensor(PIXELS, shape, INT8))
        padded = self.replicated(self.replicated(Tensor(PIXELS, shape, INT8), 1), 2)
        self.written[IMAGE] = [(0, self.rescale(padded, 0, INT8, unsigned="input"))]
        maps = [self.layer(layer) for layer in self.graph.layers]
        for tensor in (self.slice(maps[-1], (0, 0, 0, 0), shape), *maps):
            self.file.addOutputTensor(self.file.currRegion.basicBlocks[0].tensors[tensor.name])
        return [layer.name for layer in self.graph.layers]

    def layer(self, layer: Layer) -> Tensor:
        """What the layer writes: its output view, or the padded output image."""
        acc = self.convolution(layer)
        joined = None if layer.join is None else self.read(layer.join)
        if joined is not None and layer.op is Op.UP:
            joined = self.unshuffled(joined)
        if self.lowering == "rescale" and self.may_rescale(layer):
            rounded = self.rescaled(layer, acc, joined)
        else:
            rounded = self.shifted(layer, acc, joined)
        if layer.output is None:
            ((_, centred),) = self.written[IMAGE]
            clean = self.add("SUB", self.cast(centred, rounded.dtype), rounded)
            return self.rescale(self.saturated(clean, 8), 0, INT8, unsigned="output")
        bits = self.graph.buffer(layer.output.buffer).bits
        q = self.saturated(rounded, bits, relu=layer.relu)
        if layer.op is Op.UP:
            q = self.shuffled(q)
        self.written.setdefault(layer.output.buffer, []).append((layer.output.offset, q))
        return q

    def convolution(self, layer: Layer) -> Tensor:
        """Sums and bias, int32 [1, h, w, O]."""
        x = self.read(layer.input)
        wide = x.dtype == INT16
        weight = self.constant(layer.weight.transpose(0, 2, 3, 1), INT8)
        bias = self.constant(layer.bias, INT48 if wide else INT32)
        zeros = self.constant([0], x.dtype), self.constant([0], INT8)
        before, stride = layer.op.kernel // 2, layer.op.stride
        after = before - (stride - 1)  # the window of stride 2 never reaches the far margin
        pad = [before, after, before, after]
        _, height, width, _ = x.shape
        shape = (1, height // stride, width // stride, layer.out_channels)
        attributes = (pad, [stride] * 2, [1, 1], False, bias.dtype)
        operands = (x, weight, bias, *zeros)
        acc = self.add("CONV2D", *operands, shape=shape, dtype=bias.dtype, attributes=attributes)
        return self.rescale(acc, 0, INT32) if wide else acc

    def may_rescale(self, layer: Layer) -> bool:
        """Whether the proof keeps |acc| within what RESCALE is defined for."""
        limit = np.left_shift(np.int64(1), self.graph.shift(layer) + 29) - 1
        return self.graph.dyadic and bool((self.graph.accumulator_bound(layer) <= limit).all())

    def rescaled(self, layer: Layer, acc: Tensor, joined: Tensor | None) -> Tensor:
        if joined is not None:
            factor = self.constant(1 << self.graph.join_shift(layer), INT32)
            acc = self.add("ADD", acc, self.product(self.cast(joined, INT32), factor))
        bits = 32 if layer.output is None else self.graph.buffer(layer.output.buffer).bits
        return self.rescale(acc, self.graph.shift(layer), {8: INT8, 16: INT16, 32: INT32}[bits])

    def shifted(self, layer: Layer, acc: Tensor, joined: Tensor | None) -> Tensor:
        m, r, n = (self.constant(values, INT64) for values in self.graph.requantisation(layer))
        total = self.product(self.cast(acc, INT64), m)
        if joined is not None:
            total = self.add("ADD", total, self.product(self.cast(joined, INT64), r))
        return self.add("ARITHMETIC_RIGHT_SHIFT", total, self.row(n), attributes=(True,))

    def saturated(self, values: Tensor, bits: int, relu: bool = False) -> Tensor:
        """Of int8 or int16, already saturated, nothing but the ReLU is left."""
        low, high = contract.activation_range(bits)
        ignore = NanPropagationMode.IGNORE
        if values.dtype in (INT8, INT16):
            if not relu:
                return values
            ends = (np.array([end], f"int{bits}").view(np.uint8).tolist() for end in (0, high))
            return self.add("CLAMP", values, attributes=(*ends, ignore))
        for op, end in (("MAXIMUM", 0 if relu else low), ("MINIMUM", high)):
            values = self.add(
                op, values, self.row(self.constant([end], values.dtype)), attributes=(ignore,)
            )
        return self.cast(values, INT8 if bits == 8 else INT16)

    def rescale(
        self,
        values: Tensor,
        shift: npt.ArrayLike,
        dtype: Any,
        unsigned: Literal["input", "output"] | None = None,
    ) -> Tensor:
        """RESCALE by 2^-shift, one for all or one per channel; an `unsigned` side is pixels."""
        shifts = np.atleast_1d(shift)
        power = MULTIPLIER_LOG2.get(values.dtype, 30)
        narrow = values.dtype == INT48
        multiplier = self.constant(np.full_like(shifts, 1 << power), INT16 if narrow else INT32)
        # 128 as an unsigned byte.
        zeros = (
            self.constant([-contract.IMAGE_OFFSET if unsigned == side else 0], kind)
            for side, kind in (("input", values.dtype), ("output", dtype))
        )
        sides = (unsigned == "input", unsigned == "output")
        attributes = (not narrow, self.rounding, len(shifts) > 1, *sides)
        operands = (values, multiplier, self.constant(shifts + power, INT8), *zeros)
        return self.add("RESCALE", *operands, dtype=dtype, attributes=attributes)

    def product(self, values: Tensor, factor: Tensor) -> Tensor:
        return self.add("MUL", values, self.row(factor), self.constant([0], INT8))

    def cast(self, values: Tensor, dtype: Any) -> Tensor:
        ends = (values.dtype, dtype)
        if INT64 in ends and INT32 not in ends:  # 64 bits are cast from and to 32 alone
            values = self.add("CAST", values, dtype=INT32)
        return self.add("CAST", values, dtype=dtype)

    def shuffled(self, q: Tensor) -> Tensor:
        _, h, w, c = q.shape
        blocks = self.transposed(self.reshaped(q, (h, w, c // 4, 2, 2)), (0, 3, 1, 4, 2))
        return self.reshaped(blocks, (1, 2 * h, 2 * w, c // 4))

    def unshuffled(self, q: Tensor) -> Tensor:
        _, h, w, c = q.shape
        blocks = self.transposed(self.reshaped(q, (h // 2, 2, w // 2, 2, c)), (0, 2, 4, 1, 3))
        return self.reshaped(blocks, (1, h // 2, w // 2, 4 * c))

    def reshaped(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.add("RESHAPE", values, self.constant(shape, DType.SHAPE), shape=shape)

    def transposed(self, values: Tensor, axes: tuple[int, ...]) -> Tensor:
        shape = tuple(values.shape[axis] for axis in axes)
        return self.add("TRANSPOSE", values, shape=shape, attributes=(axes,))

    def slice(self, values: Tensor, start: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        bounds = (self.constant(numbers, DType.SHAPE) for numbers in (start, shape))
        return self.add("SLICE", values, *bounds, shape=shape)

    def concatenated(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        return self.add("CONCAT", *parts, shape=tuple(shape), attributes=(axis,))

    def replicated(self, image: Tensor, axis: int) -> Tensor:
        """The last row or column repeated up to a multiple of the grid."""
        size = image.shape[axis]
        count = -size % self.graph.grid
        if not count:
            return image
        start, shape, times = [0] * 4, list(image.shape), [1] * 4
        start[axis], shape[axis], times[axis] = size - 1, 1, count
        last = self.slice(image, start, tuple(shape))
        shape[axis] = count
        copies = self.add("TILE", last, self.constant(times, DType.SHAPE), shape=tuple(shape))
        return self.concatenated((image, copies), axis)

    def read(self, view: View) -> Tensor:
        """The channels of a view, joined from what was written."""
        parts = []
        for first, tensor in sorted(self.written[view.buffer]):
            *area, channels = tensor.shape
            low, high = max(first, view.offset), min(first + channels, view.end)
            if (low, high) == (first, first + channels):
                parts.append(tensor)
            elif low < high:
                parts.append(self.slice(tensor, (0, 0, 0, low - first), (*area, high - low)))
        return self.concatenated(parts, 3)

    def row(self, values: Tensor) -> Tensor:
        """[O] as [1, 1, 1, O], against a map."""
        return self.reshaped(values, (1, 1, 1, *values.shape))

    def constant(self, values: npt.ArrayLike, dtype: Any) -> Tensor:
        array = np.asarray(values)
        tensor = self.file.addConst(array.shape, dtype, array.astype(np.int64).ravel().tolist())
        return Tensor(tensor.name, array.shape, dtype)

    def add(
        self,
        op: str,
        *operands: Tensor,
        shape: tuple[int, ...] | None = None,
        dtype: Any = None,
        attributes: Sequence[Any] = (),
    ) -> Tensor:
        """Append an operator; its result has shape and type of the first operand unless given."""
        shape = operands[0].shape if shape is None else shape
        dtype = operands[0].dtype if dtype is None else dtype
        union = tosa_serializer.TosaSerializerAttribute()
        name = "".join(word.capitalize() for word in op.split("_"))
        getattr(union, f"{name}Attribute")(*attributes)
        result = self.file.addIntermediate(shape, dtype)
        names = [operand.name for operand in operands]
        self.file.addOperator(getattr(tosa_serializer.Op, op), names, [result.name], union)
        return Tensor(result.name, shape, dtype)
