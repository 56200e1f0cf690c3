"""Capability files: read, refused, and held against graphs."""

import re

import pytest
from strategies import random_graph

from hls_export.npu import CHIPS, Chip, check_fits, known_chips, load_chip

REFERENCE = (CHIPS / "reference.toml").read_text(encoding="utf-8")


def changed(**capability: object) -> Chip:
    """The reference chip with other capabilities."""
    chip = load_chip("reference")
    return chip.model_copy(
        update={"capability": chip.capability.model_copy(update=capability), "name": "changed"}
    )


def test_every_chip_that_ships_loads_under_its_own_name() -> None:
    assert "reference" in known_chips()
    assert [load_chip(name).name for name in known_chips()] == known_chips()


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(FileNotFoundError, match=r"must be one of .*reference.*, got 'nosuch'"):
        load_chip("nosuch")
    with pytest.raises(FileNotFoundError, match="file must exist"):
        load_chip("nosuch.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("channel_block = 8", "channel_block = 6", "channel_block must be a power of two, got 6"),
        ("channel_block = 8", "channel_block = 128", "channel_block must be .*64, got 128"),
        ("alignment = 16", "alignment = 0", "alignment must .* 1, got 0"),
        ("alignment = 16", "alignmnt = 16", "alignment must be present, got none"),
        ("alignment = 16", "alignment = 16\nspeed = 3", "speed must be a known field, got 3"),
        ("accumulator_bits = 32", "accumulator_bits = 8", "accumulator_bits must .*16, got 8"),
        ("max_width = 3840", "max_width = 38.5", "max_width must .*integer, got 38.5"),
        ('"UP", ', '"DOWN", ', "ops must be among CONV3X3.*, got .*DOWN"),
        ("[performance]", "[performance", "content must be TOML, got"),
    ],
)
def test_faulty_file_is_refused_by_field(tmp_path, old: str, new: str, message: str) -> None:
    assert old in REFERENCE
    path = tmp_path / "chip.toml"
    path.write_text(REFERENCE.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=f"^chip {re.escape(str(path))}: .*{message}"):
        load_chip(path)


def test_capability_crc_covers_capability_alone(tmp_path) -> None:
    path = tmp_path / "chip.toml"
    path.write_text(REFERENCE.replace("sram_bytes = 2_097_152", "sram_bytes = 1"), encoding="utf-8")
    reference = load_chip("reference").capability.crc32
    assert load_chip(path).capability.crc32 == reference
    assert changed(alignment=32).capability.crc32 != reference


def test_graph_that_a_chip_cannot_run_is_refused_by_layer() -> None:
    graph = random_graph(3)
    check_fits(graph, load_chip("reference"))
    for chip, message in (
        (changed(ops=["CONV3X3", "CONV1X1"]), r"layer encoder.0.down: op must .*CONV3X3_STRIDE2"),
        (changed(arithmetic=["multiplier"]), "arithmetic must include 'dyadic'"),
        (changed(weight_bits=[4]), "layer head: weight bits must be at most 4, got 8"),
        (changed(activation_bits=[16]), "buffer image: activation bits"),
    ):
        with pytest.raises(ValueError, match=message):
            check_fits(graph, chip)


def test_accumulator_width_is_met_to_the_bit() -> None:
    graph = random_graph(3)
    widest = max(graph.layers, key=graph.accumulator_bits)
    bits = graph.accumulator_bits(widest)
    check_fits(graph, changed(accumulator_bits=bits))
    with pytest.raises(ValueError, match=f"layer .*accumulator width must .*{bits - 1}.*{bits}"):
        check_fits(graph, changed(accumulator_bits=bits - 1))
