"""Sensitivity: each tensor alone, a table that adds up, and a precision file that qat takes."""

import csv
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from quant.convert import convert
from quant.precision import load_precision
from quant.quality import CONDITIONS
from quant.sensitivity import alone, losses_of, main, weight_bits
from starlight.models import DenoiserConfig, DenoisingNetwork
from starlight.models.checkpoint import save_weights

CONFIG = DenoiserConfig(width=4, levels=1)
LAYERS = 17
BUFFERS = 7


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    network = DenoisingNetwork(CONFIG)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    save_weights(network, path)
    return path


def invoke(*arguments: object) -> Result:
    small = ("--crop", 32, "--limit", 2, "--patch", 32, "--batch", 2, "--threads", 1)
    return CliRunner().invoke(main, [str(argument) for argument in (*arguments, *small)])


@pytest.fixture(scope="module")
def finished(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("run") / "sensitivity"
    figures = folder.parent / "figures.json"
    return folder, invoke("--weights", weights, "--out", folder, "--budget", 1.2, "--json", figures)


def test_table_has_every_tensor_at_every_width(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    assert result.exit_code == 0, result.output
    with (folder / "sensitivity.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * BUFFERS + 5 * LAYERS
    assert {row["kind"] for row in rows} == {"activations", "weights"}
    figures = json.loads((folder / "sensitivity.json").read_text())
    assert json.loads((folder.parent / "figures.json").read_text()) == figures
    assert list(figures["rows"][0])[4:] == [condition.name for condition in CONDITIONS]
    moved = {  # a network that was not trained may win by rounding
        (kind, bits): sum(
            abs(row["mean"])
            for row in figures["rows"]
            if (row["kind"], row["bits"]) == (kind, bits)
        )
        for kind, bits in (("activations", 8), ("activations", 16), ("weights", 4), ("weights", 8))
    }
    # What 16 bits leave is the output's rounding, which a few pixels cross to either side.
    assert moved["activations", 16] < 0.5 * moved["activations", 8]
    assert moved["weights", 8] < 0.2 * moved["weights", 4]
    with Image.open(folder / "sensitivity.png") as picture:
        assert min(picture.size) > 500


def test_allocation_is_a_precision_file_within_the_budget(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    allocation = json.loads((folder / "sensitivity.json").read_text())["allocation"]
    assert allocation["cost"] <= 1.2
    assert load_precision(folder / "precision.toml").model_dump() == allocation["precision"]
    assert f"{allocation['foreseen']:.3f} dB foreseen" in result.output


def test_a_chip_that_has_8_bits_alone_gets_no_others(weights: Path, tmp_path: Path) -> None:
    result = invoke("--weights", weights, "--out", tmp_path, "--budget", 1, "--chip", "reference")
    assert result.exit_code == 0, result.output
    precision = load_precision(tmp_path / "precision.toml")
    assert precision.activation_bits == precision.weight_bits == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--budget", "0.01"), "budget must be at least"),
        (("--budget", "0"), "budget"),
        (("--chip", "nowhere"), "nowhere"),
    ],
)
def test_unusable_input_is_one_line(
    arguments: tuple[str, ...], message: str, weights: Path, tmp_path: Path
) -> None:
    result = invoke("--weights", weights, "--out", tmp_path / "out", *arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output


def test_nothing_else_is_quantised_and_all_is_put_back() -> None:
    torch.manual_seed(0)
    network = DenoisingNetwork(CONFIG).eval()
    noisy = torch.randint(0, 256, (1, 3, 16, 16)).float() / 128 - 1
    quantised = convert(network, [(noisy, noisy)], equalise=False).train()
    with torch.no_grad():
        before = quantised(noisy)
        with alone(quantised, None):
            assert (quantised(noisy) - network(noisy)).abs().max() < 1e-5
        with alone(quantised, ("weights", "second")):
            one = quantised(noisy)
        with alone(quantised, ("activations", "second")):
            other = quantised(noisy)
        assert not torch.equal(one, other)
        with weight_bits(quantised, "second", 4):
            assert not torch.equal(quantised(noisy), before)
        assert torch.equal(quantised(noisy), before)


def test_losses_never_rise_with_bits() -> None:
    rows = [
        {"kind": "weights", "name": "head", "bits": bits, "mean": mean}
        for bits, mean in ((4, 0.3), (5, 0.4), (6, -0.1), (7, 0.1), (8, 0.0))
    ]
    assert losses_of(rows) == {("weights", "head"): {8: 0.0, 7: 0.1, 6: 0.1, 5: 0.4, 4: 0.4}}
