"""What sl_open refuses in format 2, and what of it in format 1. The Python reader agrees."""

import dataclasses
from collections.abc import Callable

import pytest
from runtime_library import Model
from strategies import TINY, Form, random_graph
from wide_bundles import WIDE, wide_chip

from hls_export import container
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.layer_table import (
    BufferRecord,
    ChannelRecord,
    ChipRecord,
    LayerRecord,
    ModelRecord,
    MultiplierRecord,
    Record,
)
from hls_export.npu import load_chip

GRAPHS = {form: random_graph(1, TINY, "natural", form) for form in ("wide", "multiplier")}
BUNDLES = {form: pack_bundle(graph, WIDE) for form, graph in GRAPHS.items()}
JOINED = next(i for i, layer in enumerate(GRAPHS["multiplier"].layers) if layer.join is not None)
JOINED_ROW = sum(layer.out_channels for layer in GRAPHS["multiplier"].layers[:JOINED])
WIDE_ROW = next(i for i, buffer in enumerate(GRAPHS["wide"].buffers) if buffer.bits == 16)
NARROW = next(i for i, layer in enumerate(GRAPHS["wide"].layers) if layer.weight_bits < 8)


def sealed(form: Form, in_format: int = 2, /, **changes: bytes | None) -> bytes:
    """Sections changed, dropped (None) or added, in a format's major, every CRC right."""
    sections = {s.kind: (s.required, s.data) for s in container.read_container(BUNDLES[form])}
    for kind, data in changes.items():
        sections[kind] = (container.is_required(kind), data or b"")
    dropped = {kind for kind, data in changes.items() if data is None}
    kept = [(kind, *rest) for kind, rest in sections.items() if kind not in dropped]
    return container.pack_container(kept, in_format)


def content(form: Form, kind: str) -> bytes:
    return next(s.data for s in container.read_container(BUNDLES[form]) if s.kind == kind)


def forged(form: Form, kind: str, row: int, record: type[Record], /, **fields: int) -> bytes:
    data, place = content(form, kind), row * record.SIZE
    old = record.unpack(data[place : place + record.SIZE], kind)
    new = dataclasses.replace(old, **fields).pack()  # type: ignore[type-var]
    return sealed(form, 2, **{kind: data[:place] + new + data[place + record.SIZE :]})


def multiplier(row: int, **fields: int) -> bytes:
    return forged("multiplier", "MULT", row, MultiplierRecord, **fields)


def plain_with_mult() -> bytes:
    bundle = pack_bundle(random_graph(1, TINY), load_chip("reference"))
    sections = [(s.kind, s.required, s.data) for s in container.read_container(bundle)]
    return container.pack_container([*sections, ("MULT", True, b"")], 2)


CASES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "16 bits in format 1": ("SL_RESERVED_FEATURE", lambda: sealed("wide", 1)),
    "MULT in format 1": ("SL_UNKNOWN_REQUIRED_SECTION", lambda: sealed("multiplier", 1)),
    "multipliers in format 1": (
        "SL_RESERVED_FEATURE",
        lambda: sealed("multiplier", 1, MULT=None),
    ),
    "no MULT": ("SL_MISSING_SECTION", lambda: sealed("multiplier", MULT=None)),
    "MULT of no use": ("SL_BAD_MODEL", plain_with_mult),
    "MULT cut": (
        "SL_BAD_MODEL",
        lambda: sealed("multiplier", MULT=content("multiplier", "MULT")[:-16]),
    ),
    "another arithmetic": (
        "SL_BAD_MODEL",
        lambda: forged("wide", "MODL", 0, ModelRecord, arithmetic=3),
    ),
    "widest activation": (
        "SL_BAD_MODEL",
        lambda: forged("wide", "MODL", 0, ModelRecord, activation_bits=8),
    ),
    "activation of 12 bits": (
        "SL_BAD_MODEL",
        lambda: forged("wide", "MODL", 0, ModelRecord, activation_bits=12),
    ),
    "widest weight": (
        "SL_BAD_MODEL",
        lambda: forged("wide", "MODL", 0, ModelRecord, weight_bits=4),
    ),
    "weights of 3 bits": (
        "SL_BAD_LAYER",
        lambda: forged("wide", "LAYR", NARROW, LayerRecord, weight_bits=3),
    ),
    "weights beyond their bits": (
        "SL_BAD_WEIGHTS",
        lambda: forged("wide", "LAYR", NARROW, LayerRecord, weight_bits=4),
    ),
    "bits of a layer's input": (
        "SL_BAD_LAYER",
        lambda: forged("wide", "LAYR", 0, LayerRecord, activation_bits=16),
    ),
    "buffer of 12 bits": (
        "SL_BAD_BUFFER",
        lambda: forged("wide", "BUFS", WIDE_ROW, BufferRecord, bits=12),
    ),
    "buffer of no bits": (
        "SL_BAD_BUFFER",
        lambda: forged("wide", "BUFS", WIDE_ROW, BufferRecord, bits=0),
    ),
    "16-bit buffer of 8-bit size": (
        "SL_BAD_BUFFER",
        lambda: forged("wide", "BUFS", WIDE_ROW, BufferRecord, bits=8),
    ),
    "exponent beyond 16 bits": (
        "SL_BAD_BUFFER",
        lambda: forged("wide", "BUFS", WIDE_ROW, BufferRecord, exponent=21),
    ),
    "16-bit image": ("SL_BAD_BUFFER", lambda: forged("wide", "BUFS", 0, BufferRecord, bits=16)),
    "exponent with multipliers": (
        "SL_BAD_BUFFER",
        lambda: forged("multiplier", "BUFS", 1, BufferRecord, exponent=1),
    ),
    "image's exponent with multipliers": (
        "SL_BAD_BUFFER",
        lambda: forged("multiplier", "BUFS", 0, BufferRecord, exponent=7),
    ),
    "multiplier": ("SL_BAD_CHANNEL", lambda: multiplier(0, multiplier=2**20 + 1)),
    "join multiplier": (
        "SL_BAD_CHANNEL",
        lambda: multiplier(JOINED_ROW, join_multiplier=2**20 + 1),
    ),
    "join multiplier without a join": (
        "SL_BAD_CHANNEL",
        lambda: multiplier(0, join_multiplier=1),
    ),
    "shift of 0": ("SL_BAD_CHANNEL", lambda: multiplier(0, shift=0)),
    "shift of 41": ("SL_BAD_CHANNEL", lambda: multiplier(0, shift=41)),
    "reserved byte of MULT": (
        "SL_BAD_CHANNEL",
        lambda: sealed(
            "multiplier",
            MULT=content("multiplier", "MULT")[:15] + b"\x01" + content("multiplier", "MULT")[16:],
        ),
    ),
    "shift beside multipliers": (
        "SL_BAD_CHANNEL",
        lambda: forged("multiplier", "CHAN", 0, ChannelRecord, shift=1),
    ),
    "join shift beside multipliers": (
        "SL_BAD_CHANNEL",
        lambda: forged("multiplier", "CHAN", 0, ChannelRecord, join_shift=1),
    ),
    "weight exponent beside multipliers": (
        "SL_BAD_CHANNEL",
        lambda: forged("multiplier", "CHAN", 0, ChannelRecord, weight_exponent=1),
    ),
    "bias beyond the accumulator": (
        "SL_BAD_ACCUMULATOR",
        lambda: forged("multiplier", "CHAN", 0, ChannelRecord, bias=2**31 - 1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refusal(name: str) -> None:
    status, damaged = CASES[name]
    bundle = damaged()
    assert Model(bundle).status == status
    with pytest.raises(ValueError, match=r".+ must .+"):
        read_bundle(bundle)


@pytest.mark.parametrize("form", GRAPHS)
def test_the_bundle_itself_is_accepted(form: Form) -> None:
    assert Model(BUNDLES[form]).status == Model(sealed(form)).status == "SL_OK"


def test_format_2_without_its_features_is_accepted() -> None:
    bundle = pack_bundle(random_graph(1, TINY), load_chip("reference"))
    sections = [(s.kind, s.required, s.data) for s in container.read_container(bundle)]
    assert Model(container.pack_container(sections, 2)).status == "SL_OK"


def test_an_optional_mult_is_skipped_in_format_1() -> None:
    bundle = pack_bundle(random_graph(1, TINY), load_chip("reference"))
    sections = [(s.kind, s.required, s.data) for s in container.read_container(bundle)]
    assert Model(container.pack_container([*sections, ("MULT", False, b"x")])).status == "SL_OK"


def test_chips_of_odd_addresses_take_8_bits_alone() -> None:
    wide = forged("wide", "CHIP", 0, ChipRecord, alignment=1)
    assert Model(wide).status == "SL_BAD_BUFFER"
    chip = wide_chip(load_chip("reference"), alignment=1)
    graph = random_graph(1, TINY)
    assert Model(pack_bundle(graph, chip)).status == "SL_OK"
