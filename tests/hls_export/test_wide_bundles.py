"""Format 2: 16-bit buffers, narrow weights and multipliers, through every file and machine."""

import json
from pathlib import Path

import numpy as np
import pytest
from graph_equality import assert_same_graph
from hypothesis import given, settings
from strategies import Form, graphs, images, random_graph, random_image

from hls_export import container
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.cycles import compute_work, layer_by_layer, value_bytes, weight_transfer
from hls_export.disassemble import disassemble
from hls_export.document import bundle_document, graph_from_document, to_json
from hls_export.executors.c_runtime import native
from hls_export.executors.planned_runtime import PlannedRuntime
from hls_export.npu import Capability, Chip, load_chip
from hls_export.planner import plan_stripes
from hls_export.verify import verify
from quant import interpret
from quant.integer_graph import IntegerGraph
from quant.intmath import UInt8Array

REFERENCE = load_chip("reference")


def changed(**fields: object) -> Chip:
    """The reference with another capability."""
    capability = Capability(**{**REFERENCE.capability.model_dump(), **fields})
    return REFERENCE.model_copy(update={"capability": capability})


ANY = changed(activation_bits=[8, 16], weight_bits=[4, 8], arithmetic=["dyadic", "multiplier"])
FORMS: tuple[Form, ...] = ("wide", "multiplier")


@settings(max_examples=25)
@given(graph=graphs(forms=FORMS), image=images())
def test_every_machine_agrees_and_the_graph_comes_back(
    graph: IntegerGraph, image: UInt8Array
) -> None:
    data = pack_bundle(graph, ANY)
    assert container.read_header(data).format_major == 2
    bundle = read_bundle(data)
    assert_same_graph(bundle.graph(), graph)
    document = json.loads(to_json(bundle_document(bundle)))
    assert_same_graph(graph_from_document(document, bundle.weights), graph)
    expected, layers = interpret.run_traced(graph, image)
    output, traced = native().Model(data).run(image, trace=True)
    assert np.array_equal(output, expected)
    for name, values in layers.items():
        assert traced[name].dtype == values.dtype
        assert np.array_equal(traced[name], values), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_stripe_plan_counts_two_bytes_a_value(form: Form, seed: int) -> None:
    graph = random_graph(seed, form=form)
    sram = REFERENCE.performance.model_copy(update={"sram_bytes": 4096})
    chip = ANY.model_copy(update={"performance": sram})
    plan = plan_stripes(graph, chip)
    data = pack_bundle(graph, chip, plan)
    assert read_bundle(data).stripes == plan
    image = random_image(seed, 37, 50)
    expected, layers = interpret.run_traced(graph, image)
    planned = PlannedRuntime().run(data, image)
    assert np.array_equal(planned.output, expected)
    for name, values in layers.items():
        assert np.array_equal(planned.layers[name], values), name


@pytest.mark.parametrize("form", FORMS)
def test_all_is_verified_and_listed(form: Form) -> None:
    data = pack_bundle(random_graph(3, form=form), ANY)
    assert [v.status for v in verify(data, random_image(3, 9, 14))].count("FAIL") == 0
    listing = disassemble(read_bundle(data))
    assert "sat16(floor((acc" in listing
    assert ("MULT[0]" in listing) == (form == "multiplier")


@pytest.mark.parametrize(
    ("form", "chip", "message"),
    [
        ("wide", REFERENCE, "activation bits must be among"),
        (
            "wide",
            changed(activation_bits=[8, 16], weight_bits=[4]),
            "weight bits must be at most 4",
        ),
        ("wide", changed(activation_bits=[8, 16], alignment=1), "alignment must be at least 2"),
        ("multiplier", changed(activation_bits=[8, 16]), "arithmetic must include 'multiplier'"),
    ],
)
def test_what_the_chip_lacks_is_refused(form: Form, chip: Chip, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack_bundle(random_graph(0, form=form), chip)


def test_shipped_chips() -> None:
    wide, multiplier = random_graph(0, form="wide"), random_graph(0, form="multiplier")
    assert read_bundle(pack_bundle(wide, load_chip("large"))).format == "2.0"
    narrow = random_graph(0)
    for chip in ("large", "mid", "reference", "small"):
        assert read_bundle(pack_bundle(narrow, load_chip(chip))).format == "1.0"
    with pytest.raises(ValueError, match=r"chip mid, buffer .* activation bits"):
        pack_bundle(multiplier, load_chip("mid"))


def test_costs_follow_the_bits() -> None:
    graph = random_graph(0, form="wide")
    wide = [it for it in graph.layers if graph.buffer(it.input.buffer).bits == 16]
    layer, performance = wide[0], REFERENCE.performance
    slow = compute_work(layer, 8, 8, performance, value_bytes(graph, layer))
    fast = compute_work(layer, 8, 8, performance)
    assert slow.compute_cycles == 2 * fast.compute_cycles
    assert slow.traffic.sram_read >= 2 * fast.traffic.sram_read - fast.traffic.sram_write
    packed = next(it for it in graph.layers if it.weight_bits == 4)
    assert weight_transfer(ANY, packed) < weight_transfer(changed(), packed)
    assert layer_by_layer(graph, ANY, 64, 64).cycles > 0


def test_narrow_bundles_keep_their_format() -> None:
    data = (Path(__file__).parent / "bundles" / "format_1_0.slb").read_bytes()
    assert container.read_header(data).format_major == 1
    assert "MULT" not in {section.kind for section in container.read_container(data)}


def with_sections(data: bytes, major: int, **changes: bytes | None) -> bytes:
    """The bundle with sections replaced, added or, by None, dropped."""
    kept = {s.kind: s.data for s in container.read_container(data)} | changes
    return container.pack_container(
        [(kind, container.is_required(kind), d) for kind, d in kept.items() if d is not None], major
    )


def test_values_of_two_bytes_need_an_even_alignment() -> None:
    data = (Path(__file__).parent / "bundles" / "format_2_0.slb").read_bytes()
    parts = {section.kind: section.data for section in container.read_container(data)}
    chip = parts["CHIP"][:8] + (1).to_bytes(4, "little") + parts["CHIP"][12:]
    odd = with_sections(data, 2, CHIP=chip, PLAN=None)
    with pytest.raises(ValueError, match="CHIP alignment must be at least 2"):
        read_bundle(odd)
    with pytest.raises(ValueError, match="a buffer record must be in range"):
        native().Model(odd)


def test_sections_and_versions_must_agree() -> None:
    wide, multiplier = (pack_bundle(random_graph(1, form=form), ANY) for form in FORMS)
    with pytest.raises(ValueError, match=r"format version must be 2\.x for what it holds, got 1"):
        read_bundle(with_sections(wide, 1))
    with pytest.raises(ValueError, match="required section MULT must be one of"):
        read_bundle(with_sections(multiplier, 1))
    with pytest.raises(ValueError, match=r"section MULT must occur in multiplier .*, got none"):
        read_bundle(with_sections(multiplier, 2, MULT=None))
    with pytest.raises(ValueError, match=r"section MULT must occur in multiplier .*, got one"):
        read_bundle(with_sections(wide, 2, MULT=b""))
    content = {s.kind: s.data for s in container.read_container(multiplier)}
    with pytest.raises(ValueError, match="MULT rows must be"):
        read_bundle(with_sections(multiplier, 2, MULT=content["MULT"][:-16]))
    with pytest.raises(ValueError, match="MULT rows must be"):
        read_bundle(with_sections(multiplier, 2, MULT=content["MULT"] + bytes(16)))
    with pytest.raises(ValueError, match=r"MULT.* reserved byte 9 must be 0"):
        read_bundle(with_sections(multiplier, 2, MULT=b"\1" * 16 + content["MULT"][16:]))
    forged = b"\1\0\x20\0" + content["MULT"][4:]
    with pytest.raises(ValueError, match=r"multiplier must be in 0\.\.1048576, got 2097153"):
        read_bundle(with_sections(multiplier, 2, MULT=forged))
    assert_same_graph(
        read_bundle(with_sections(pack_bundle(random_graph(1), ANY), 2)).graph(), random_graph(1)
    )
