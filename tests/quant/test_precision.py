"""Wide and multiplier networks: the float64 model is the integer graph; precision files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_image, seeds

from quant.convert import convert, project
from quant.graph_files import load_graph, save_graph
from quant.interpret import run_traced
from quant.lower import lower, run_quantised
from quant.modules import QuantDenoisingNetwork
from quant.precision import Precision, load_precision
from starlight.models import DenoiserConfig, DenoisingNetwork

CONFIG = DenoiserConfig(width=4, levels=2)
MIXED = {
    "activation_bits": {"decoder.*": 16, "second": 16, "decoder.0.out": 8},
    "weight_bits": {"middle.*": 4, "tail": 6},
}


def trained(config: DenoiserConfig, precision: Precision, seed: int) -> QuantDenoisingNetwork:
    """Calibrated and a few steps of training away from it."""
    torch.manual_seed(seed)
    network = DenoisingNetwork(config)
    side = 2 * config.grid
    batch = (torch.randint(0, 256, (2, 3, side, side)).float() - 128) / 128
    quantised = convert(network, [batch], precision).train()
    optimiser = torch.optim.SGD(quantised.parameters(), lr=0.05)
    for _ in range(3):
        optimiser.zero_grad()
        (quantised(batch) - 0.5 * batch).square().mean().backward()
        optimiser.step()
        project(quantised)
    return quantised


precisions = st.builds(
    Precision,
    arithmetic=st.sampled_from(["dyadic", "multiplier"]),
    activation_bits=st.dictionaries(
        st.sampled_from(["*", "encoder.*", "middle.*", "*.out", "second"]),
        st.sampled_from([8, 16]),
    ),
    weight_bits=st.dictionaries(
        st.sampled_from(["*", "*.conv1", "*.fuse", "head", "tail"]), st.integers(4, 8)
    ),
)


@settings(max_examples=12)
@given(precision=precisions, seed=seeds, levels=st.integers(1, 2))
def test_trained_network_is_its_graph(precision: Precision, seed: int, levels: int) -> None:
    config = DenoiserConfig(width=4, levels=levels)
    quantised = trained(config, precision, seed)
    graph = lower(quantised, "trained")
    assert graph.arithmetic == precision.arithmetic
    for buffer in graph.buffers:
        assert buffer.bits == precision.buffer(buffer.name)
    for layer in graph.layers:
        assert layer.weight_bits == precision.layer(layer.name)
    image = random_image(seed, 13, 18)
    output, traced = run_quantised(quantised, image)
    expected, layers = run_traced(graph, image)
    assert list(traced) == list(layers)
    for name, values in layers.items():
        assert traced[name].dtype == values.dtype
        assert np.array_equal(traced[name], values), name
    assert np.array_equal(output, expected)


@pytest.mark.parametrize("arithmetic", ["dyadic", "multiplier"])
def test_graph_files_keep_it(arithmetic: str, tmp_path: Path) -> None:
    from graph_equality import assert_same_graph

    graph = lower(trained(CONFIG, Precision(arithmetic=arithmetic, **MIXED), 0), "mixed")
    save_graph(graph, tmp_path / "graph.json")
    loaded = load_graph(tmp_path / "graph.json")
    assert_same_graph(loaded, graph)
    assert [buffer.scale for buffer in loaded.buffers] == [b.scale for b in graph.buffers]


def test_multipliers_use_their_range() -> None:
    """M or R takes at least half of its bits in every channel, or n its largest."""
    graph = lower(trained(CONFIG, Precision(arithmetic="multiplier"), 1), "multiplier")
    for layer in graph.layers:
        m, r, n = graph.requantisation(layer)
        assert (np.maximum(2 * m, 2 * r) >= 2**20 - 1).all() or (n == 40).all()


def test_the_last_pattern_counts(tmp_path: Path) -> None:
    path = tmp_path / "precision.toml"
    path.write_text(
        'arithmetic = "multiplier"\n[activation_bits]\n"decoder.*" = 16\n"decoder.0.out" = 8\n'
        '[weight_bits]\n"*.conv?" = 5\n',
        encoding="utf-8",
    )
    precision = load_precision(path)
    assert not precision.dyadic
    names = ("image", "second", "decoder.0.dense", "decoder.0.out", "decoder.1.out")
    assert [precision.buffer(name) for name in names] == [8, 8, 16, 8, 16]
    assert [precision.layer(name) for name in ("head", "middle.dense.conv2")] == [8, 5]
    (tmp_path / "p.json").write_text(precision.model_dump_json(), encoding="utf-8")
    assert load_precision(tmp_path / "p.json") == precision


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('arithmetic = "float"', "arithmetic must be valid"),
        ("[activation_bits]\nsecond = 12", "activation_bits.second must be valid"),
        ("[weight_bits]\nhead = 3", "weight_bits.head must be valid"),
        ("bits = 4", "bits must be valid"),
        ("bits = ", "content must be TOML"),
    ],
)
def test_bad_files_are_refused_by_field(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "precision.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_precision(path)
    with pytest.raises(FileNotFoundError, match="file must exist"):
        load_precision(tmp_path / "none.toml")


@pytest.mark.parametrize("table", ["activation_bits", "weight_bits"])
def test_a_name_that_is_none_is_refused(table: str) -> None:
    bits = {table: {"encoder.7.*": 8}}
    with pytest.raises(ValueError, match=rf"precision: {table} must name one of .*, got 'encoder"):
        QuantDenoisingNetwork(CONFIG, Precision.model_validate(bits))
