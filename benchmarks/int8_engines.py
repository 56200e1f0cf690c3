"""The same networks in 8 bits on other people's engines: onnxruntime and OpenVINO, in every form.

form        qdq: float operators between QuantizeLinear and DequantizeLinear, for the engine to
            fuse; qoperator: QLinearConv and QLinearAdd, integers from end to end
activation  u8 or s8; zero stands at the lower end of the range, so saturation is the ReLU and no
            form pays for one; every tensor has the one scale that makes joins plain copies
ends        8bit: quantised tensors in and out; float: they are quantised and dequantised within

That is the most that a quantiser could do for these engines. Their arithmetic rounds otherwise than
the contract, so values are not compared: a run must be of the right shape, type and not constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.engines import INPUT, ONNX_OPERATORS, Graph, Node

Form = Literal["qdq", "qoperator"]
Activation = Literal["u8", "s8"]
Ends = Literal["8bit", "float"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)
ACTIVATIONS: Final[tuple[Activation, ...]] = get_args(Activation)
ENDS: Final[tuple[Ends, ...]] = get_args(Ends)
Run = Callable[[], NDArray[Any]]

SCALE: Final = 2.0**-4  # of every activation
DTYPES: Final[dict[Activation, Any]] = {"u8": np.uint8, "s8": np.int8}


class _Writer:
    def __init__(self, graph: Graph, form: Form, activation: Activation, ends: Ends) -> None:
        from onnx import TensorProto, helper, numpy_helper

        self._helper, self._numpy = helper, numpy_helper
        self.graph, self.form, self.ends = graph, form, ends
        self.dtype = DTYPES[activation]
        self.element = TensorProto.UINT8 if activation == "u8" else TensorProto.INT8
        self.float_element = TensorProto.FLOAT
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        zero = np.array(np.iinfo(self.dtype).min, self.dtype)
        self.numbers = [self.constant("scale", np.float32(SCALE)), self.constant("zero", zero)]

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(self._numpy.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self._helper.make_node(kind, inputs, [output], **attributes))
        return output

    def quantise(self, name: str, output: str) -> str:
        return self.node("QuantizeLinear", [name, *self.numbers], output)

    def dequantise(self, name: str, user: str) -> str:
        return self.node("DequantizeLinear", [name, *self.numbers], f"{name}.float.{user}")

    def convolution(self, node: Node) -> None:
        assert node.weight is not None
        assert node.bias is not None
        name = node.output
        step = (np.abs(node.weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
        weight = np.rint(node.weight / step[:, None, None, None]).astype(np.int8)
        bias = np.rint(node.bias / (step * SCALE)).astype(np.int32)
        window = {"pads": [weight.shape[-1] // 2] * 4, "strides": [node.stride] * 2}
        w, steps, zeros, b = (
            self.constant(f"{name}.{part}", value)
            for part, value in (
                ("weight", weight),
                ("step", step),
                ("zeros", np.zeros(len(step), np.int8)),
                ("bias", bias),
            )
        )
        if self.form == "qoperator":
            inputs = [node.inputs[0], *self.numbers, w, steps, zeros, *self.numbers, b]
            self.node("QLinearConv", inputs, name, **window)
            return
        sums = self.constant(f"{name}.sum_step", (step * SCALE).astype(np.float32))
        whole = self.constant(f"{name}.no_offset", np.zeros(len(step), np.int32))
        values = [
            self.dequantise(node.inputs[0], name),
            self.node("DequantizeLinear", [w, steps, zeros], f"{name}.w", axis=0),
            self.node("DequantizeLinear", [b, sums, whole], f"{name}.b", axis=0),
        ]
        self.quantise(self.node("Conv", values, f"{name}.real", **window), name)

    def other(self, node: Node) -> None:
        kind, attributes = ONNX_OPERATORS[node.kind]
        if self.form == "qoperator" and kind == "Concat":
            self.node(kind, list(node.inputs), node.output, **attributes)
        elif self.form == "qoperator" and kind == "Add":
            one, two = node.inputs
            inputs = [one, *self.numbers, two, *self.numbers, *self.numbers]
            self.node("QLinearAdd", inputs, node.output, domain="com.microsoft")
        else:
            values = [self.dequantise(name, node.output) for name in node.inputs]
            real = self.node(kind, values, f"{node.output}.real", **attributes)
            self.quantise(real, node.output)

    def model(self) -> bytes:
        make, result = self._helper.make_tensor_value_info, self.graph.nodes[-1].output
        element, ends = self.element, (INPUT, result)
        if self.ends == "float":
            element, ends = self.float_element, ("real_input", "real_result")
            self.quantise("real_input", INPUT)
        for node in self.graph.nodes:
            if node.kind == "conv":
                self.convolution(node)
            else:
                self.other(node)
        if self.ends == "float":
            self.node("DequantizeLinear", [result, *self.numbers], "real_result")
        shapes: tuple[tuple[int | str | None, ...], ...] = (self.graph.shape, tuple("NCHW"))
        values = [make(name, element, shape) for name, shape in zip(ends, shapes, strict=True)]
        graph = self._helper.make_graph(
            self.nodes, "network", values[:1], values[1:], self.constants
        )
        opsets = [
            self._helper.make_opsetid("", 19),
            self._helper.make_opsetid("com.microsoft", 1),
        ]
        return self._helper.make_model(
            graph, opset_imports=opsets, ir_version=9
        ).SerializeToString()


def quantised_onnx(graph: Graph, form: Form, activation: Activation, ends: Ends) -> bytes:
    """The graph in 8 bits, per-channel steps of the weights."""
    return _Writer(graph, form, activation, ends).model()


def _input(graph: Graph, activation: Activation, ends: Ends) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    dtype = DTYPES[activation]
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    values = rng.integers(low, high, graph.shape, dtype=dtype, endpoint=True)
    return ((values.astype(np.float32) - low) * SCALE) if ends == "float" else values


def _checked(run: Run, what: str) -> Run:
    got = run()
    if got.min() == got.max():
        raise ValueError(f"{what}: output must vary, got {got.flat[0]} everywhere")
    return run


def onnxruntime_int8(
    graph: Graph, form: Form, activation: Activation, ends: Ends, threads: int
) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that spin between runs would slow the peer whose turn it is.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        quantised_onnx(graph, form, activation, ends), options, providers=["CPUExecutionProvider"]
    )
    (name,) = (value.name for value in session.get_inputs())
    x = _input(graph, activation, ends)
    return _checked(lambda: session.run(None, {name: x})[0], f"onnxruntime {form} {activation}")


def openvino_int8(graph: Graph, activation: Activation, ends: Ends, threads: int) -> Run:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(quantised_onnx(graph, "qdq", activation, ends)),
        "CPU",
        {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1},
    )
    request = compiled.create_infer_request()
    x = _input(graph, activation, ends)
    run = lambda: request.infer({0: x}, share_inputs=True, share_outputs=True)[0]  # noqa: E731
    return _checked(run, f"openvino {activation}")


def torch_float(graph: Graph, threads: int) -> Run:
    """float32, channels last."""
    torch.set_num_threads(threads)
    x = torch.randn(graph.shape).contiguous(memory_format=torch.channels_last)
    last = {"memory_format": torch.channels_last}
    numbers = {
        node.output: (torch.from_numpy(node.weight).contiguous(**last), torch.from_numpy(node.bias))
        for node in graph.nodes
        if node.weight is not None and node.bias is not None
    }

    def step(node: Node, values: list[torch.Tensor]) -> torch.Tensor:
        if node.kind == "conv":
            weight, bias = numbers[node.output]
            pad = weight.shape[-1] // 2
            out = functional.conv2d(values[0], weight, bias, stride=node.stride, padding=pad)
            return out.relu_() if node.relu else out
        if node.kind == "concat":
            return torch.cat(values, 1)
        if node.kind == "shuffle":
            return functional.pixel_shuffle(values[0], 2).contiguous(**last)
        return values[0] + values[1] if node.kind == "add" else values[0] - values[1]

    @torch.inference_mode()
    def run() -> NDArray[Any]:
        known = {INPUT: x}
        for node in graph.nodes:
            known[node.output] = step(node, [known[name] for name in node.inputs])
        return known[graph.nodes[-1].output].numpy()

    return run
