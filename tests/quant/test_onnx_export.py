"""The three ONNX forms on other people's machines: the golden model's bits, by ==."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given
from onnx.reference import ReferenceEvaluator
from strategies import FORMS as GRAPH_FORMS
from strategies import STYLES, TINY, graphs, images, random_graph, random_image

from quant.graph_files import save_graph
from quant.integer_graph import IntegerGraph
from quant.interpret import largest_sums, run
from quant.intmath import UInt8Array
from quant.onnx_export import FLOAT_SUMS, FORMS, INPUT, OUTPUT, Form, main, to_onnx
from quant.topology import Topology

TWO_LEVELS = Topology(widths=(4, 6, 8), growths=(2, 3, 4))
UINT8_FORMS: tuple[Form, ...] = ("integer", "qcdq")


def planes(image: UInt8Array) -> UInt8Array:
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])


def pixels(output: Any) -> UInt8Array:
    return np.asarray(output)[0].transpose(1, 2, 0)


def onnxruntime_session(model: onnx.ModelProto, level: str = "ORT_ENABLE_ALL") -> Any:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("form", UINT8_FORMS)
def test_onnx_own_evaluator(form: Form) -> None:
    graph, image = random_graph(0), random_image(0, 7, 10)
    (output,) = ReferenceEvaluator(to_onnx(graph, form)).run(None, {INPUT: planes(image)})
    assert np.array_equal(pixels(output), run(graph, image))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("graph_form", GRAPH_FORMS)
def test_integers_on_onnx_own_evaluator(graph_form: Any, style: Any) -> None:
    graph, image = random_graph(8, TWO_LEVELS, style, graph_form), random_image(8, 7, 10)
    (output,) = ReferenceEvaluator(to_onnx(graph, "integer")).run(None, {INPUT: planes(image)})
    assert np.array_equal(pixels(output), run(graph, image))


@given(graphs(forms=GRAPH_FORMS), images())
def test_integers_on_onnxruntime(graph: IntegerGraph, image: UInt8Array) -> None:
    session = onnxruntime_session(to_onnx(graph, "integer"))
    (output,) = session.run(None, {INPUT: planes(image)})
    assert np.array_equal(pixels(output), run(graph, image))


@pytest.mark.parametrize(
    "level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"]
)
@pytest.mark.parametrize("form", UINT8_FORMS)
def test_every_optimisation_of_onnxruntime(form: Form, level: str) -> None:
    for seed, topology in ((1, TINY), (2, TWO_LEVELS)):
        graph, image = random_graph(seed, topology), random_image(seed, 21, 38)
        assert max(largest_sums(graph, image).values()) < FLOAT_SUMS
        (output,) = onnxruntime_session(to_onnx(graph, form), level).run(
            None, {INPUT: planes(image)}
        )
        assert np.array_equal(pixels(output), run(graph, image))


def test_a_file_serves_every_size_and_batch() -> None:
    graph = random_graph(3)
    session = onnxruntime_session(to_onnx(graph))
    for height, width in ((1, 1), (5, 3), (16, 2)):
        batch = [random_image(seed, height, width) for seed in (0, 1)]
        (output,) = session.run(None, {INPUT: np.concatenate([planes(image) for image in batch])})
        for image, got in zip(batch, output, strict=True):
            assert np.array_equal(got.transpose(1, 2, 0), run(graph, image))


@pytest.mark.parametrize("form", UINT8_FORMS)
@pytest.mark.parametrize("style", ["natural", "edges"])
def test_openvino(form: Form, style: Any) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    graph, image = random_graph(4, TWO_LEVELS, style), random_image(4, 19, 26)
    if form == "qcdq" and style == "edges":  # sums beyond float32 belong to `integer`
        with pytest.raises(ValueError, match=r"\|bias\| must be below 2\^29 .* form integer"):
            to_onnx(graph, form)
        return
    core = openvino.Core()
    model = core.read_model(to_onnx(graph, form).SerializeToString())
    # Its default on processors that have it is bfloat16, which no sum survives.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.array_equal(pixels(compiled(planes(image))[0]), run(graph, image))


def test_qonnx_executor() -> None:
    wrapper = pytest.importorskip(
        "qonnx.core.modelwrapper", reason="qonnx is not installed"
    ).ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    graph, image = random_graph(5, TWO_LEVELS), random_image(5, 16, 24)
    model = wrapper(to_onnx(graph, "qonnx"))
    model.set_tensor_shape(INPUT, [1, 3, 16, 24])
    given_image = {INPUT: planes(image).astype(np.float32)}
    output = execute_onnx(model.transform(InferShapes()), given_image)[OUTPUT]
    assert np.array_equal(pixels(output), run(graph, image))


def test_bits_that_ties_would_cost() -> None:
    """Without the quarter step the same file differs: the trick is what holds the bits."""
    graph, image = random_graph(1), random_image(1, 21, 38)
    model = to_onnx(graph, "qcdq")
    for constant in model.graph.initializer:
        if constant.data_type == onnx.TensorProto.INT32 and len(constant.dims) == 1:
            quarters = onnx.numpy_helper.to_array(constant)
            constant.CopyFrom(onnx.numpy_helper.from_array(quarters // 4 * 4, constant.name))
    (output,) = ReferenceEvaluator(model).run(None, {INPUT: planes(image)})
    assert not np.array_equal(pixels(output), run(graph, image))


def test_largest_sums_are_those_of_the_layers() -> None:
    graph, image = random_graph(6), random_image(6, 9, 9)
    found = largest_sums(graph, image)
    assert list(found) == [layer.name for layer in graph.layers]
    for layer in graph.layers:
        bits = graph.accumulator_bits(layer)
        assert 0 < found[layer.name] < 2 ** (bits - 1)


@pytest.mark.parametrize("form", FORMS)
def test_command(tmp_path: Path, form: Form) -> None:
    graph = random_graph(7)
    save_graph(graph, tmp_path / "graph.json")
    out = tmp_path / "model.onnx"
    result = CliRunner().invoke(main, [str(tmp_path / "graph.json"), str(out), "--form", form])
    assert result.exit_code == 0, result.output
    assert f"form {form}" in result.output
    assert onnx.load(out) == to_onnx(graph, form)


def test_command_without_a_graph(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(tmp_path / "none.json"), str(tmp_path / "m.onnx")])
    assert result.exit_code != 0
    assert "none.json" in result.output
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="form must be one of integer, qcdq, qonnx, got 'tflite'"):
        to_onnx(random_graph(0), "tflite")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["qcdq", "qonnx"])
@pytest.mark.parametrize(
    ("graph_form", "message"),
    [
        ("wide", "onnx export, buffer .*: bits must be 8 in form q.*, got 16; take .* integer"),
        (
            "multiplier",
            "arithmetic of form q.* must be dyadic, got multiplier; take .* integer",
        ),
    ],
)
def test_what_float_sums_cannot_hold_is_refused(form: Any, graph_form: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_onnx(random_graph(0, form=graph_form), form)
