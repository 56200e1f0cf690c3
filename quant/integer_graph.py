"""The IntegerGraph: a quantised denoiser as frozen dataclasses, without torch.

A graph is a list of buffers and a list of layers in execution order. A *buffer* is an activation
map [H >> level, W >> level, channels] with one exponent; a *view* is a channel slice of a buffer.
The members of a dense block are views of one growth buffer, so joining channels is an address and
never a copy. Every slice is written once, before it is read.
"""

import dataclasses
import functools
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from quant import contract
from quant.contract import Op
from starlight.files import write_atomically

IntArray = npt.NDArray[np.integer[Any]]

_T = TypeVar("_T")

IMAGE = "image"  # the buffer that holds the padded input as pixel - 128


@dataclass(frozen=True)
class Buffer:
    """An activation map [H >> level, W >> level, channels]: value = q * 2^-exponent."""

    name: str
    channels: int
    level: int
    exponent: int
    bits: int = contract.ACTIVATION_BITS


@dataclass(frozen=True)
class View:
    """Channels [offset, offset + channels) of a buffer."""

    buffer: str
    offset: int
    channels: int

    @property
    def end(self) -> int:
        return self.offset + self.channels


@dataclass(frozen=True, eq=False)
class Layer:
    """One convolution with everything that joins its accumulator.

    weight          int8 [O, I, k, k], in -127..127
    weight_exponent int64 [O]: weight value = q * 2^-weight_exponent
    bias            int64 [O] within int32, at exponent e_acc = e_input + weight_exponent
    output          None for the tail, whose output is the image itself
    """

    name: str
    op: Op
    input: View
    output: View | None
    join: View | None
    relu: bool
    weight: IntArray
    weight_exponent: IntArray
    bias: IntArray

    @property
    def out_channels(self) -> int:
        return int(self.weight.shape[0])


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """A denoiser in integers, `levels` steps deep: images are padded to multiples of 2^levels.

    Raises ValueError on construction, naming layer and channel, when the contract does not hold.
    """

    name: str
    levels: int
    buffers: tuple[Buffer, ...]
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        check_graph(self)

    @property
    def grid(self) -> int:
        return 1 << self.levels

    def buffer(self, name: str) -> Buffer:
        return self._by_name[name]

    @functools.cached_property
    def _by_name(self) -> Mapping[str, Buffer]:
        return {buffer.name: buffer for buffer in self.buffers}

    def accumulator_exponent(self, layer: Layer) -> IntArray:
        """e_acc = e_input + e_weight, int64 [O]."""
        return layer.weight_exponent.astype(np.int64) + self.buffer(layer.input.buffer).exponent

    def shift(self, layer: Layer) -> IntArray:
        """The requantisation shift s = e_acc - e_output, int64 [O]; the tail puts out pixels."""
        exponent = (
            contract.IMAGE_EXPONENT
            if layer.output is None
            else self.buffer(layer.output.buffer).exponent
        )
        return self.accumulator_exponent(layer) - exponent

    def join_shift(self, layer: Layer) -> IntArray:
        """The left shift of the joined tensor, e_acc - e_join, int64 [O]; zeros without a join."""
        if layer.join is None:
            return np.zeros(layer.out_channels, dtype=np.int64)
        return self.accumulator_exponent(layer) - self.buffer(layer.join.buffer).exponent

    def accumulator_bound(self, layer: Layer) -> IntArray:
        """Largest |accumulator| that any input can cause, in any order of summation, int64 [O].

        128 sum|q_w| + |b| + 128 * 2^j (when something joins) + 2^(s-1).
        """
        magnitude = -contract.ACTIVATION_MIN
        weight = np.abs(layer.weight.astype(np.int64)).sum(axis=(1, 2, 3))
        bound = magnitude * weight + np.abs(layer.bias.astype(np.int64))
        if layer.join is not None:
            bound = bound + magnitude * np.left_shift(np.int64(1), self.join_shift(layer))
        return bound + np.left_shift(np.int64(1), self.shift(layer) - 1)

    def accumulator_bits(self, layer: Layer) -> int:
        """The least two's complement width whose range holds `accumulator_bound`."""
        return int(self.accumulator_bound(layer).max()).bit_length() + 1

    def macs(self, layer: Layer, height: int, width: int) -> int:
        """Multiply-accumulates of a layer on an image of height x width, padded to the grid."""
        rows, columns = (math.ceil(size / self.grid) * self.grid for size in (height, width))
        level = self.buffer(layer.input.buffer).level + (layer.op.stride - 1)
        return (rows >> level) * (columns >> level) * int(layer.weight.size)


def check_graph(graph: IntegerGraph) -> None:
    """Hold a graph against the contract; the first breach raises ValueError naming its place."""
    _require(
        1 <= graph.levels <= contract.LEVELS_MAX,
        f"graph {graph.name}",
        "levels",
        f"be in 1..{contract.LEVELS_MAX}",
        graph.levels,
    )
    _check_buffers(graph)
    written: dict[str, set[int]] = {buffer.name: set() for buffer in graph.buffers}
    written[IMAGE] = set(range(contract.IMAGE_CHANNELS))
    names: set[str] = set()
    for layer in graph.layers:
        what = f"layer {layer.name}"
        _require(layer.name not in names, what, "name", "be unique", layer.name)
        names.add(layer.name)
        _check_arrays(layer)
        _check_views(graph, layer, written)
        _check_numbers(graph, layer)
    tails = [layer.name for layer in graph.layers if layer.op is Op.TAIL]
    _require(
        bool(tails) and tails == [graph.layers[-1].name],
        f"graph {graph.name}",
        "layers",
        "end with the only tail",
        tails,
    )


def _require(holds: bool, what: str, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{what}: {name} must {rule}, got {value}")


def _check_buffers(graph: IntegerGraph) -> None:
    names = [buffer.name for buffer in graph.buffers]
    _require(len(set(names)) == len(names), f"graph {graph.name}", "buffer names", "differ", names)
    _require(IMAGE in names, f"graph {graph.name}", "buffers", f"hold {IMAGE!r}", names)
    for buffer in graph.buffers:
        what = f"buffer {buffer.name}"
        _require(buffer.channels >= 1, what, "channels", "be at least 1", buffer.channels)
        _require(
            0 <= buffer.level <= graph.levels,
            what,
            "level",
            f"be in 0..{graph.levels}",
            buffer.level,
        )
        low, high = contract.ACTIVATION_EXPONENT_MIN, contract.ACTIVATION_EXPONENT_MAX
        _require(
            low <= buffer.exponent <= high,
            what,
            "exponent",
            f"be in {low}..{high}",
            buffer.exponent,
        )
        _require(
            buffer.bits == contract.ACTIVATION_BITS,
            what,
            "bits",
            f"be {contract.ACTIVATION_BITS} (16 is reserved)",
            buffer.bits,
        )
    image = graph.buffer(IMAGE)
    expected = Buffer(IMAGE, contract.IMAGE_CHANNELS, 0, contract.IMAGE_EXPONENT)
    _require(image == expected, f"graph {graph.name}", IMAGE, f"be {expected}", image)


def _check_arrays(layer: Layer) -> None:
    what = f"layer {layer.name}"
    for name in ("weight", "weight_exponent", "bias"):
        array = getattr(layer, name)
        if not np.issubdtype(array.dtype, np.integer):
            raise TypeError(f"{what}: {name} must be an integer array, got {array.dtype}")
    kernel = layer.op.kernel
    shape = layer.weight.shape
    _require(len(shape) == 4, what, "weight", "have four dimensions", shape)
    channels = layer.out_channels
    _require(channels >= 1, what, "output channels", "be at least 1", channels)
    _require(
        layer.weight.shape == (channels, layer.input.channels, kernel, kernel),
        what,
        "weight",
        f"have shape (O, {layer.input.channels}, {kernel}, {kernel})",
        layer.weight.shape,
    )
    for name in ("weight_exponent", "bias"):
        shape = getattr(layer, name).shape
        _require(shape == (channels,), what, name, f"have shape ({channels},)", shape)


def _check_views(graph: IntegerGraph, layer: Layer, written: dict[str, set[int]]) -> None:
    what = f"layer {layer.name}"
    views = {"input": layer.input, "join": layer.join, "output": layer.output}
    for name, view in views.items():
        if view is None:
            continue
        _require(view.buffer in written, what, f"{name} buffer", "exist", view.buffer)
        buffer = graph.buffer(view.buffer)
        _require(
            view.offset >= 0 and view.channels >= 1 and view.end <= buffer.channels,
            what,
            name,
            f"lie within the {buffer.channels} channels of {buffer.name}",
            view,
        )
        region = set(range(view.offset, view.end))
        if name == "output":
            fresh = not region & written[view.buffer]
            _require(fresh, what, name, "be written once", view)
            written[view.buffer] |= region
        else:
            _require(region <= written[view.buffer], what, name, "be written before", view)

    level = graph.buffer(layer.input.buffer).level
    if layer.op is Op.TAIL:
        _require(layer.output is None, what, "output", "be None for a tail", layer.output)
        _require(layer.join is None, what, "join", "be None for a tail", layer.join)
        _require(not layer.relu, what, "relu", "be False for a tail", layer.relu)
        _require(level == 0, what, "input level", "be 0 for a tail", level)
        expected = contract.IMAGE_CHANNELS
        _require(
            layer.out_channels == expected, what, "channels", f"be {expected}", layer.out_channels
        )
        return
    _require(layer.output is not None, what, "output", "be a view", None)
    assert layer.output is not None
    step = {Op.CONV3X3_STRIDE2: 1, Op.UP: -1}.get(layer.op, 0)
    for name in ("output", "join"):
        view = views[name]
        if view is not None:
            got = graph.buffer(view.buffer).level
            _require(got == level + step, what, f"{name} level", f"be {level + step}", got)
            channels = layer.out_channels // (4 if layer.op is Op.UP else 1)
            _require(
                view.channels == channels, what, f"{name} channels", f"be {channels}", view.channels
            )
    if layer.op is Op.UP:
        count = layer.out_channels
        _require(count % 4 == 0, what, "output channels", "be a multiple of 4", count)


def _check_numbers(graph: IntegerGraph, layer: Layer) -> None:
    shift = graph.shift(layer)
    ranges: dict[str, tuple[IntArray, int, int]] = {
        "weight": (layer.weight, contract.WEIGHT_MIN, contract.WEIGHT_MAX),
        "weight_exponent": (
            layer.weight_exponent,
            contract.WEIGHT_EXPONENT_MIN,
            contract.WEIGHT_EXPONENT_MAX,
        ),
        "bias": (layer.bias, -contract.ACCUMULATOR_MAX, contract.ACCUMULATOR_MAX),
        "requantisation shift": (shift, contract.SHIFT_MIN, contract.SHIFT_MAX),
        "join shift": (graph.join_shift(layer), contract.JOIN_SHIFT_MIN, contract.JOIN_SHIFT_MAX),
    }
    for name, (values, low, high) in ranges.items():
        outside = np.argwhere((values < low) | (values > high))
        if outside.size:
            index = tuple(int(i) for i in outside[0])
            raise ValueError(
                f"layer {layer.name}, channel {index[0]}: {name} must be in {low}..{high}, "
                f"got {int(values[index])}"
            )
    bound = graph.accumulator_bound(layer)
    worst = int(bound.argmax())
    if bound[worst] > contract.ACCUMULATOR_MAX:
        raise ValueError(
            f"layer {layer.name}, channel {worst}: accumulator bound must be at most "
            f"{contract.ACCUMULATOR_MAX}, got {int(bound[worst])}"
        )


ARRAYS = ("weight", "weight_exponent", "bias")


def graph_to_dict(graph: IntegerGraph) -> dict[str, Any]:
    """Everything of a graph but its arrays, in JSON types."""
    return {
        "arithmetic": contract.ARITHMETIC,
        "arithmetic_version": contract.ARITHMETIC_VERSION,
        "requantisation": contract.REQUANTISATION,
        "tail_requantisation": contract.TAIL_REQUANTISATION,
        "name": graph.name,
        "levels": graph.levels,
        "buffers": [dataclasses.asdict(buffer) for buffer in graph.buffers],
        "layers": [
            {
                "name": layer.name,
                "op": layer.op.name,
                "input": dataclasses.asdict(layer.input),
                "output": layer.output and dataclasses.asdict(layer.output),
                "join": layer.join and dataclasses.asdict(layer.join),
                "relu": layer.relu,
            }
            for layer in graph.layers
        ],
    }


def save_graph(graph: IntegerGraph, path: str | os.PathLike[str]) -> None:
    """Write `path` (JSON) and, beside it with the suffix .npz, the arrays; each atomically."""
    path = Path(path)
    arrays = {
        f"{layer.name}.{name}": getattr(layer, name) for layer in graph.layers for name in ARRAYS
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path.with_suffix(".npz"), buffer.getvalue())
    write_atomically(path, (json.dumps(graph_to_dict(graph), indent=1) + "\n").encode())


# What json, zipfile and numpy raise on damaged files beside ValueError.
_MALFORMED = (
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_graph(path: str | os.PathLike[str]) -> IntegerGraph:
    """Read what `save_graph` wrote.

    Raises FileNotFoundError when a file is missing, ValueError when its content is no valid graph.
    """
    path = Path(path)
    for part in (path, path.with_suffix(".npz")):
        if not part.is_file():
            raise FileNotFoundError(f"graph {path}: {part.name} must exist beside it, found none")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        _check_versions(document)
        return IntegerGraph(
            name=_typed(document, "name", str),
            levels=_typed(document, "levels", int),
            buffers=tuple(_load_record(Buffer, entry) for entry in document["buffers"]),
            layers=tuple(_load_layers(document, arrays)),
        )
    except _MALFORMED as error:
        raise ValueError(
            f"graph {path}: content must be a saved IntegerGraph, got {error!r}"
        ) from error
    except ValueError as error:
        raise ValueError(f"graph {path}: {error}") from error


def _check_versions(document: Mapping[str, Any]) -> None:
    expected = {
        "arithmetic": contract.ARITHMETIC,
        "arithmetic_version": contract.ARITHMETIC_VERSION,
        "requantisation": contract.REQUANTISATION,
        "tail_requantisation": contract.TAIL_REQUANTISATION,
    }
    for name, value in expected.items():
        _require(document[name] == value, "document", name, f"be {value!r}", document[name])


def _typed(entry: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    """entry[name], which must be of the very type: JSON's true is no integer, 3.5 no level."""
    value = entry[name]
    _require(type(value) is kind, "document", name, f"be of type {kind.__name__}", repr(value))
    return cast(_T, value)


def _load_record(record: type[_T], entry: Mapping[str, Any]) -> _T:
    """A Buffer or View from exactly its fields."""
    fields = {field.name: field.type for field in dataclasses.fields(cast(Any, record))}
    _require(set(entry) == set(fields), record.__name__, "fields", f"be {list(fields)}", entry)
    return record(**{name: _typed(entry, name, cast(type, kind)) for name, kind in fields.items()})


def _load_layers(document: Mapping[str, Any], arrays: Mapping[str, IntArray]) -> Iterator[Layer]:
    for entry in document["layers"]:
        name = _typed(entry, "name", str)
        output, join = entry["output"], entry["join"]
        yield Layer(
            name=name,
            op=Op[entry["op"]],
            input=_load_record(View, entry["input"]),
            output=None if output is None else _load_record(View, output),
            join=None if join is None else _load_record(View, join),
            relu=_typed(entry, "relu", bool),
            **{key: arrays[f"{name}.{key}"] for key in ARRAYS},
        )
