"""What differs between two bundles, in words.

Layers and buffers are matched by name. A difference that follows from another one alone, such as
the offset of weights behind a longer layer, is told as a change of layout, once per bundle.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from hls_export import container
from hls_export.bundle import Bundle, read_bundle
from hls_export.document import bundle_document
from hls_export.export import slice_text
from hls_export.options import PATH, json_option
from hls_export.plan_text import plan_changes
from quant.integer_graph import IntArray, Layer
from starlight.files import write_json

KNOWN = (*container.KINDS_REQUIRED, *container.KINDS_WHEN_NEEDED, *container.KINDS_OPTIONAL)
# Fields of a layer that say where things lie, or that follow from others.
LAYOUT = ("weight_offset", "channel_row")
DERIVED = (
    *("weight_bytes", "weight_crc32", "macs_per_cell", "shift", "join_shift"),
    *("bias", "weight_exponent", "name", "multipliers"),
)


@dataclass(frozen=True)
class Difference:
    """One thing that differs. where: "chip", "buffer NAME", "layer NAME", ...; what: in words."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def diff_bundles(one: Bundle, other: Bundle) -> list[Difference]:
    """What differs from `one` to `other`; empty when their bytes are the same."""
    return list(_differences(one, other))


def _differences(one: Bundle, other: Bundle) -> Iterator[Difference]:
    before, after = bundle_document(one), bundle_document(other)
    yield from _fields("format", _scalars(before), _scalars(after))
    for part in ("model", "chip"):
        yield from _fields(part, before[part], after[part])
    yield from _sequence("buffer", before["buffers"], after["buffers"], _changed)
    layers = {layer.name: layer for layer in one.graph().layers}
    others = {layer.name: layer for layer in other.graph().layers}

    def layer_words(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
        yield from _layer(mine, theirs)
        yield from _numbers(layers[mine["name"]], others[mine["name"]])

    yield from _sequence("layer", before["layers"], after["layers"], layer_words)
    yield from _layout(before["layers"], after["layers"])
    if one.stripes is not None and other.stripes is not None:
        for words in plan_changes(one.stripes, other.stripes):
            yield Difference("plan", words)
    yield from _vectors(one, other)
    yield from _fields("meta", one.meta, other.meta)
    yield from _sections(one, other)


def _scalars(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if isinstance(value, str | int)}


def _fields(where: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Difference]:
    for words in _changed(one, other):
        yield Difference(where, words)


def _changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*one, *other]):
        mine, theirs = one.get(name, "none"), other.get(name, "none")
        if mine != theirs:
            yield f"{name} {_text(name, mine)} -> {_text(name, theirs)}"


def _text(name: str, value: Any) -> str:
    return f"{value:08x}" if name.endswith("crc32") and isinstance(value, int) else str(value)


Records = list[dict[str, Any]]


def _sequence(
    what: str,
    one: Records,
    other: Records,
    words: Callable[[Mapping[str, Any], Mapping[str, Any]], Iterator[str]],
) -> Iterator[Difference]:
    """Records matched by name: those of one side alone, those that differ, then the order."""
    mine, theirs = ({record["name"]: record for record in side} for side in (one, other))
    for name in mine:
        if name not in theirs:
            yield Difference(f"{what} {name}", "only in the first")
    for name in theirs:
        if name not in mine:
            yield Difference(f"{what} {name}", "only in the second")
    shared = [name for name in mine if name in theirs]
    for name in shared:
        for text in words(mine[name], theirs[name]):
            yield Difference(f"{what} {name}", text)
    if shared != [name for name in theirs if name in mine]:
        yield Difference(f"{what}s", "those of both come in another order")


def _layer(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """Facts of a layer that are not its numbers; views by buffer and channels alone."""
    yield from _changed(*({**_plain(side), **_views(side)} for side in (one, other)))


def _plain(layer: Mapping[str, Any]) -> dict[str, Any]:
    left_out = (*LAYOUT, *DERIVED, "input", "join", "output")
    return {name: value for name, value in layer.items() if name not in left_out}


def _views(layer: Mapping[str, Any]) -> dict[str, str]:
    return {side: slice_text(layer[side]) for side in ("input", "join", "output")}


def _numbers(one: Layer, other: Layer) -> Iterator[str]:
    """Weights, biases and exponents in counts."""
    arrays = {
        "weights": (one.weight, other.weight),
        "biases": (one.bias, other.bias),
        "weight exponents": (one.weight_exponent, other.weight_exponent),
    }
    if one.multipliers is not None and other.multipliers is not None:
        pairs = zip(one.multipliers, other.multipliers, strict=True)
        names = ("multipliers", "join multipliers", "shifts")
        arrays |= dict(zip(names, pairs, strict=True))
    for title, (mine, theirs) in arrays.items():
        if mine.shape != theirs.shape:
            yield f"{title} {_shape(mine)} -> {_shape(theirs)}"
        elif not np.array_equal(mine, theirs):
            gap = np.abs(mine.astype(np.int64) - theirs.astype(np.int64))
            count = int((gap != 0).sum())
            yield f"{count} of {mine.size} {title} differ, by {int(gap.max())} at most"


def _shape(array: IntArray) -> str:
    return "x".join(map(str, array.shape))


def _layout(one: Records, other: Records) -> Iterator[Difference]:
    theirs = {layer["name"]: layer for layer in other}
    moved = {
        name: sum(
            layer[name] != theirs[layer["name"]][name] for layer in one if layer["name"] in theirs
        )
        for name in LAYOUT
    }
    for name, count in moved.items():
        if count:
            yield Difference("layout", f"{name} of {count} layers of both moves")


def _vectors(one: Bundle, other: Bundle) -> Iterator[Difference]:
    mine, theirs = one.vectors, other.vectors
    if not np.array_equal(mine.input, theirs.input):
        sizes = (f"{v.input.shape[1]}x{v.input.shape[0]}" for v in (mine, theirs))
        yield Difference("vectors", f"another frame, {' -> '.join(sizes)}")
        return
    names = [[bundle.text(layer.name) for layer in bundle.layers] for bundle in (one, other)]
    if names[0] == names[1]:
        pairs = zip(names[0], mine.layer_crc32, theirs.layer_crc32, strict=True)
        differing = [name for name, crc, their_crc in pairs if crc != their_crc]
        if differing:
            yield Difference(
                "vectors", f"{len(differing)} layers put out other bits, {differing[0]} the first"
            )
    if not np.array_equal(mine.output, theirs.output):
        gap = np.abs(mine.output.astype(np.int64) - theirs.output.astype(np.int64))
        yield Difference(
            "vectors",
            f"{int((gap != 0).sum())} of {gap.size} samples of the output differ, "
            f"by {int(gap.max())} at most",
        )


def _sections(one: Bundle, other: Bundle) -> Iterator[Difference]:
    """Kinds of one side alone, sizes, order, and the bytes of kinds that nothing above reads."""
    mine, theirs = (
        {section.kind: section.data for section in bundle.sections} for bundle in (one, other)
    )
    for kind in dict.fromkeys([*mine, *theirs]):
        where = f"section {kind}"
        if kind not in theirs or kind not in mine:
            yield Difference(where, f"only in the {'first' if kind in mine else 'second'}")
        elif len(mine[kind]) != len(theirs[kind]):
            yield Difference(where, f"bytes {len(mine[kind])} -> {len(theirs[kind])}")
        elif (
            kind not in (*container.KINDS_REQUIRED, *container.KINDS_OPTIONAL)
            and mine[kind] != theirs[kind]
        ):
            yield Difference(where, "of an unknown kind, other bytes")
    if list(mine) != list(theirs) and set(mine) == set(theirs):
        yield Difference("sections", f"order {' '.join(mine)} -> {' '.join(theirs)}")
    if one.bytes != other.bytes:
        yield Difference("file", f"bytes {one.bytes} -> {other.bytes}")


@click.command("diff")
@click.argument("one", type=PATH)
@click.argument("other", type=PATH)
@json_option("the differences")
def diff_command(one: Path, other: Path, json_file: Path | None) -> None:
    """Say what differs between two bundles; exit 0 when nothing does, 1 when something does."""
    differences = diff_bundles(read_bundle(one), read_bundle(other))
    for difference in differences:
        click.echo(difference)
    if json_file is not None:
        document = {
            "first": one.name,
            "second": other.name,
            "differences": [asdict(difference) for difference in differences],
        }
        write_json(json_file, document)
    if differences:
        raise SystemExit(1)
