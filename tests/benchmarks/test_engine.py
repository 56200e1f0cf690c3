"""The engine's benchmark: rows as promised, peers' graphs as their forms say."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from benchmarks import engine
from benchmarks.engines import INPUT, Graph
from benchmarks.int8_engines import ACTIVATIONS, DTYPES, ENDS, FORMS, quantised_onnx, torch_float


def test_quick_run_gives_a_row_for_each_end(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    arguments = ["--quick", "--peer", "torch", "--json", str(file)]
    result = CliRunner().invoke(engine.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = json.loads(file.read_text(encoding="utf-8"))["engine"]["rows"]
    assert [(row["case"], row["mode"]) for row in rows] == [
        (engine.QUICK.name, ends) for ends in ENDS
    ]
    for row in rows:
        assert row["ours_ms"] > 0
        assert row["peak_bytes"] > 48 * 48 * 16
        assert list(row["peers_ms"]) == ["torch float32"]
        assert row["ratio"] is None  # no peer in 8 bits took part


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("ends", ENDS)
def test_peers_graphs_are_valid_and_have_their_ends(form: str, activation: str, ends: str) -> None:
    graph = engine.QUICK.peers_graph()
    model = onnx.load_from_string(quantised_onnx(graph, form, activation, ends))  # type: ignore[arg-type]
    onnx.checker.check_model(model)
    (given,) = model.graph.input
    element = onnx.helper.np_dtype_to_tensor_dtype(
        np.dtype(np.float32 if ends == "float" else DTYPES[activation])  # type: ignore[index]
    )
    assert given.type.tensor_type.elem_type == element
    kinds = {node.op_type for node in model.graph.node}
    assert ("QLinearConv" in kinds) == (form == "qoperator")
    assert ("Conv" in kinds) == (form == "qdq")


def test_a_blocks_operations_are_its_peers() -> None:
    case = engine.QUICK
    weights = [node.weight for node in case.peers_graph().nodes if node.weight is not None]
    assert case.operations == 2 * case.side**2 * sum(weight.size for weight in weights)


def test_torch_peer_runs_the_whole_graph() -> None:
    import torch

    graph = Graph((1, 4, 6, 6))
    identity = torch.eye(4).reshape(4, 4, 1, 1)
    doubled = graph.conv(INPUT, 2 * identity, torch.zeros(4))
    graph.add("shuffle", graph.add("sub", doubled, graph.add("add", INPUT, INPUT)))
    out = torch_float(graph, 1)()
    assert out.shape == (1, 1, 12, 12)
    assert not out.any()
