"""The same convolutions on other people's engines: onnxruntime, OpenVINO, ncnn; each is optional.

A network is written down once, as a `Graph`, and from there as ONNX or as ncnn's two files.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from starlight.models.denoiser import DenoisingNetwork

Floats = NDArray[np.float32]
Run = Callable[[], Floats]
Precision = Literal["float32", "bfloat16"]

INPUT: Final = "input"


@dataclass(frozen=True)
class Node:
    """output = kind(inputs). conv: zero padding of half the kernel, ReLU after it with `relu`.

    kind: conv, concat (channels), add, sub, shuffle (pixel shuffle by 2).
    """

    kind: str
    output: str
    inputs: tuple[str, ...]
    weight: Floats | None = None
    bias: Floats | None = None
    stride: int = 1
    relu: bool = False


@dataclass
class Graph:
    """Nodes in order of execution; the last output is the result. input: NCHW, one image."""

    shape: tuple[int, ...]
    nodes: list[Node] = field(default_factory=list)

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(Node(kind, name, inputs, **attributes))
        return name

    def conv(
        self, x: str, weight: Tensor, bias: Tensor, *, stride: int = 1, relu: bool = False
    ) -> str:
        return self.add(
            "conv", x, weight=_array(weight), bias=_array(bias), stride=stride, relu=relu
        )

    def dense_block(self, x: str, weights: list[Tensor], biases: list[Tensor]) -> str:
        members = [x]
        for weight, bias in zip(weights[:3], biases[:3], strict=True):
            joined = self.add("concat", *members) if len(members) > 1 else x
            members.append(self.conv(joined, weight, bias, relu=True))
        return self.add("add", x, self.conv(self.add("concat", *members), weights[3], biases[3]))

    def network(self, network: DenoisingNetwork) -> None:
        """A network with the default Choices."""

        def conv(x: str, module: nn.Module, stride: int = 1) -> str:
            assert isinstance(module, nn.Conv2d)
            assert module.bias is not None
            return self.conv(x, module.weight, module.bias, stride=stride)

        def dense(x: str, block: Any) -> str:
            convs = (block.conv1, block.conv2, block.conv3, block.fuse)
            return self.dense_block(x, [c.weight for c in convs], [c.bias for c in convs])

        head = x = conv(INPUT, network.head)
        blocks = []
        for step in network.encoder:
            blocks.append(dense(x, step.dense))
            x = conv(blocks[-1], step.down, stride=2)  # type: ignore[arg-type]
        x = dense(x, network.middle["dense"])
        for step, block in zip(reversed(network.decoder), reversed(blocks), strict=True):
            up = self.add("shuffle", conv(x, step.up.conv))  # type: ignore[union-attr, arg-type]
            x = dense(self.add("add", up, block), step.dense)
        noise = conv(self.add("add", head, conv(x, network.second)), network.tail)
        self.add("sub", INPUT, noise)


def _array(value: Tensor) -> Floats:
    return np.ascontiguousarray(value.detach().float().numpy())


ONNX_OPERATORS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "concat": ("Concat", {"axis": 1}),
    "add": ("Add", {}),
    "sub": ("Sub", {}),
    "shuffle": ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}),
}


def onnx_bytes(graph: Graph) -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], []
    for node in graph.nodes:
        if node.kind == "conv":
            assert node.weight is not None
            assert node.bias is not None
            names = [f"{node.output}.weight", f"{node.output}.bias"]
            constants += [
                numpy_helper.from_array(value, name)
                for name, value in zip(names, (node.weight, node.bias), strict=True)
            ]
            result = f"{node.output}.sum" if node.relu else node.output
            pads, strides = [node.weight.shape[-1] // 2] * 4, [node.stride] * 2
            nodes.append(
                helper.make_node(
                    "Conv", [*node.inputs, *names], [result], pads=pads, strides=strides
                )
            )
            if node.relu:
                nodes.append(helper.make_node("Relu", [result], [node.output]))
            continue
        name, attributes = ONNX_OPERATORS[node.kind]
        nodes.append(helper.make_node(name, node.inputs, [node.output], **attributes))
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in ((INPUT, graph.shape), (graph.nodes[-1].output, "NCHW"))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "network", values[:1], values[1:], constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


def ncnn_files(graph: Graph) -> tuple[str, bytes]:
    """Text of the .param and bytes of the .bin: every blob has one reader, Split makes more."""
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    taken: Counter[str] = Counter()
    lines, blobs, weights = list[str](), set[str](), bytearray()

    def layer(kind: str, name: str, inputs: list[str], outputs: list[str], options: str) -> None:
        blobs.update(outputs)
        counts = f"{len(inputs)} {len(outputs)}"
        lines.append(" ".join([kind, name, counts, *inputs, *outputs, options]))

    def produced(name: str) -> None:
        if readers[name] > 1:
            copies = [f"{name}_{index}" for index in range(readers[name])]
            layer("Split", f"split_{name}", [name], copies, "")

    def read(name: str) -> str:
        if readers[name] == 1:
            return name
        taken[name] += 1
        return f"{name}_{taken[name] - 1}"

    layer("Input", INPUT, [], [INPUT], "")
    produced(INPUT)
    for node in graph.nodes:
        kind, options = {
            "conv": ("Convolution", ""),
            "concat": ("Concat", "0=0"),
            "add": ("BinaryOp", "0=0"),
            "sub": ("BinaryOp", "0=1"),
            "shuffle": ("PixelShuffle", "0=2"),
        }[node.kind]
        if node.kind == "conv":
            assert node.weight is not None
            assert node.bias is not None
            outputs, _, side, _ = node.weight.shape
            options = (
                f"0={outputs} 1={side} 3={node.stride} 4={side // 2} 5=1 6={node.weight.size} "
                f"9={int(node.relu)}"
            )
            weights += bytes(4) + node.weight.tobytes() + node.bias.tobytes()
        layer(kind, node.output, [read(name) for name in node.inputs], [node.output], options)
        produced(node.output)
    return f"7767517\n{len(lines)} {len(blobs)}\n" + "\n".join(lines) + "\n", bytes(weights)


def onnxruntime_run(graph: Graph, x: Floats, threads: int, precision: Precision) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that spin between runs would slow the peer whose turn it is.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        onnx_bytes(graph), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {INPUT: x})[0]


def openvino_run(graph: Graph, x: Floats, threads: int, precision: Precision) -> Run:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(onnx_bytes(graph)),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
        },
    )
    request = compiled.create_infer_request()
    return lambda: request.infer({0: x}, share_inputs=True, share_outputs=True)[0]


def ncnn_run(graph: Graph, x: Floats, threads: int, precision: Precision) -> Run:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = precision == "bfloat16"
    text, weights = ncnn_files(graph)
    with tempfile.TemporaryDirectory() as folder:
        param, model = Path(folder) / "network.param", Path(folder) / "network.bin"
        param.write_text(text, encoding="utf-8")
        model.write_bytes(weights)
        if net.load_param(str(param)) or net.load_model(str(model)):
            raise ValueError("ncnn: network must load, got an error")
    image = ncnn.Mat(x[0]).clone()  # the array would have to outlive it
    result = graph.nodes[-1].output

    def run() -> Floats:
        extractor = net.create_extractor()
        extractor.input(INPUT, image)
        _, out = extractor.extract(result)
        return np.asarray(out)[None]

    return run


@dataclass(frozen=True)
class Engine:
    """open(graph, x, threads, precision) -> a run of x; package: what to install."""

    package: str
    open: Callable[[Graph, Floats, int, Precision], Run]
    precisions: tuple[Precision, ...]

    def available(self) -> bool:
        return find_spec(self.package) is not None


ENGINES: Final[dict[str, Engine]] = {
    "onnxruntime": Engine("onnxruntime", onnxruntime_run, ("float32",)),
    "openvino": Engine("openvino", openvino_run, ("float32", "bfloat16")),
    "ncnn": Engine("ncnn", ncnn_run, ("float32", "bfloat16")),
}


def input_array(x: Tensor) -> Floats:
    """x as the engines take it: float32, NCHW."""
    return _array(x.contiguous())


def relative_error(got: Floats, exact: Tensor) -> float:
    """Root mean square of the difference over that of the float64 reference."""
    difference = torch.from_numpy(np.asarray(got, np.float64)) - exact
    return float(difference.square().mean().sqrt() / exact.square().mean().sqrt())
