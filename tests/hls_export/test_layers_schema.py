"""docs/layers.schema.json accepts what the exporter writes and refuses what is not that."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from strategies import FORMS, TINY, graphs, random_graph

from hls_export.bundle import pack_bundle, read_bundle
from hls_export.document import CHANNEL_NUMBERS, bundle_document, to_json
from hls_export.layer_table import (
    BufferRecord,
    ChipRecord,
    LayerRecord,
    ModelRecord,
    MultiplierRecord,
    ViewRecord,
)
from hls_export.npu import load_chip
from quant.contract import Op
from quant.integer_graph import IntegerGraph

jsonschema = pytest.importorskip("jsonschema", reason="needs: pip install jsonschema")

PATH = Path(__file__).resolve().parents[2] / "docs" / "layers.schema.json"
SCHEMA = json.loads(PATH.read_text(encoding="utf-8"))


def document(graph: IntegerGraph) -> dict[str, Any]:
    """layers.json of a graph, as a reader gets it."""
    chip = load_chip("reference")
    more = {
        "activation_bits": [8, 16],
        "weight_bits": [4, 8],
        "arithmetic": ["dyadic", "multiplier"],
    }
    able = chip.model_copy(update={"capability": chip.capability.model_copy(update=more)})
    bundle = read_bundle(pack_bundle(graph, able))
    return json.loads(to_json(bundle_document(bundle)))


DOCUMENT = document(random_graph(1, TINY))


def check(value: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(value)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@given(graphs(forms=FORMS))
def test_every_export_is_accepted(graph: IntegerGraph) -> None:
    check(document(graph))


def test_every_field_of_the_records_is_described() -> None:
    def fields(record: type) -> set[str]:
        return {field.name for field in dataclasses.fields(record)}

    defined, top = SCHEMA["$defs"], SCHEMA["properties"]
    assert set(top["model"]["properties"]) == fields(ModelRecord)
    assert set(top["chip"]["properties"]) == fields(ChipRecord)
    assert set(defined["buffer"]["properties"]) == fields(BufferRecord) | {"scale"}
    assert set(defined["view"]["properties"]) == fields(ViewRecord)
    layer = fields(LayerRecord) - {"flags"} | {"relu", "multipliers", *CHANNEL_NUMBERS}
    multipliers = defined["layer"]["properties"]["multipliers"]["properties"]
    assert set(multipliers) == fields(MultiplierRecord)
    assert set(defined["layer"]["properties"]) == layer
    assert set(top) == {*DOCUMENT, "requantisation_16"}
    assert defined["layer"]["properties"]["op"]["enum"] == [op.name for op in Op]


def test_a_later_key_of_the_document_is_ignored() -> None:
    check({**DOCUMENT, "later": 1})


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("chip"),
        lambda d: d.update(format="3.0"),
        lambda d: d.update(arithmetic="multiplier"),
        lambda d: d["model"].update(levels=7),
        lambda d: d["model"].update(weight_bits=3),
        lambda d: d["chip"].update(channel_block=12),
        lambda d: d["chip"].update(extra=1),
        lambda d: d["buffers"].clear(),
        lambda d: d["buffers"][0].update(exponent=13),
        lambda d: d["buffers"][0].pop("level"),
        lambda d: d["layers"][0].update(op="CONV5X5"),
        lambda d: d["layers"][0].update(relu=1),
        lambda d: d["layers"][0].update(output=None),
        lambda d: d["layers"][0].update(weight_offset=1),
        lambda d: d["layers"][0]["input"].update(channels=0),
        lambda d: d["layers"][0]["bias"].append(2**31),
        lambda d: d["layers"][0]["shift"].append(0),
        lambda d: d["layers"][-1].update(join=d["layers"][0]["input"]),
        lambda d: d["layers"][-1].update(output=d["layers"][0]["input"]),
    ],
)
def test_what_is_no_export_is_refused(change: Change) -> None:
    changed = copy.deepcopy(DOCUMENT)
    change(changed)
    with pytest.raises(jsonschema.ValidationError):
        check(changed)
