"""docs/MODEL.md: its tables are the code's presets and Choices."""

import re
import typing
from pathlib import Path

import torch

from starlight.models import PRESETS, DenoiserConfig, DenoisingNetwork
from starlight.models.config import LOWERABLE
from starlight.models.cost import macs_per_pixel, parameter_count, receptive_radius

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "MODEL.md").read_text(encoding="utf-8")


def rows(section: str) -> list[list[str]]:
    """Cells of a section's table, without its title."""
    table = re.search(r"(?:^\|.*\n)+", TEXT[TEXT.index(f"## {section}\n") :], re.MULTILINE)
    assert table is not None
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table[0].splitlines()[2:]
    ]


def in_code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_presets() -> None:
    assert rows("Presets") == [
        [
            name,
            str(config.width),
            str(config.levels),
            config.growth,
            f"{parameter_count(config):,}",
            f"{macs_per_pixel(config):,}".removesuffix(".0"),
            str(receptive_radius(config)),
        ]
        for name, config in PRESETS.items()
    ]
    choices = {"width", "levels", "growth"}
    for config in PRESETS.values():
        assert config.model_dump(exclude=choices) == DenoiserConfig(width=2).model_dump(
            exclude=choices
        )


def test_choices() -> None:
    documented = {
        name: (in_code(values), in_code(refused)) for name, values, _, refused in rows("Choices")
    }
    expected = {}
    for name, field in DenoiserConfig.model_fields.items():
        if name in ("width", "levels"):
            continue
        values = typing.get_args(field.annotation) or (True, False)
        refused = [str(value) for value in values if value not in LOWERABLE.get(name, values)]
        ordered = [field.default, *(value for value in values if value != field.default)]
        expected[name] = ([str(value) for value in ordered], refused)
    assert documented == expected


def test_reach_of_a_cell() -> None:
    """The columns that the pixels of a cell read, by the gradient of a narrow network."""
    found = re.search(
        r"columns 0\.\.15 read columns (-\d+)\.\.(\d+): (\d+) columns beyond the cell, "
        r"and (\d+) from the worst pixel, column (\d+)",
        " ".join(TEXT.split()),
    )
    assert found is not None
    low, high, beyond, worst, worst_pixel = map(int, found.groups())
    config = DenoiserConfig(width=2, levels=PRESETS["edge"].levels)
    torch.manual_seed(0)
    network = DenoisingNetwork(config).double()
    for parameter in network.parameters():  # positive: no path is lost in a ReLU
        torch.nn.init.uniform_(parameter, 0.01, 0.1)
    cell = 12 * config.grid
    image = torch.rand(1, 3, config.grid, 2 * cell, dtype=torch.float64, requires_grad=True)
    output = network(image)[0, :, 0]
    reach = {}
    for pixel in range(config.grid):
        (gradient,) = torch.autograd.grad(output[:, cell + pixel].sum(), image, retain_graph=True)
        columns = gradient.abs().sum((0, 1, 2)).nonzero().flatten() - cell
        reach[pixel] = (int(columns[0]), int(columns[-1]))
    assert (low, high) == (
        min(first for first, _ in reach.values()),
        max(last for _, last in reach.values()),
    )
    assert beyond == max(-low, high - (config.grid - 1))
    distances = {pixel: max(pixel - a, b - pixel) for pixel, (a, b) in reach.items()}
    assert worst == max(distances.values()) == distances[worst_pixel]


def test_ablations_have_their_place() -> None:
    begin, end = (TEXT.index(f"<!-- ablations:{name} -->") for name in ("begin", "end"))
    assert begin < end
