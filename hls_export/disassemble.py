"""A bundle as a listing: every record with its place in the file, and what each layer does.

Fields are those of docs/FORMAT.md, offsets of strings resolved. A place is the byte offset in the
file, in hexadecimal; layers state their arithmetic with the addresses of their operands.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from hls_export.bundle import Bundle, read_bundle
from hls_export.layer_table import (
    NO_VIEW,
    ChannelRecord,
    LayerRecord,
    MultiplierRecord,
    Record,
    ViewRecord,
)
from hls_export.options import PATH
from hls_export.plan_text import plan_lines
from hls_export.tables import RELU
from quant import contract
from quant.contract import Op
from starlight.files import write_atomically


def disassemble(bundle: Bundle) -> str:
    """The listing, a line per field, record or step; it ends with a newline."""
    return "".join(line.rstrip() + "\n" for line in _lines(bundle))


def _lines(bundle: Bundle) -> Iterator[str]:
    starts = {section.kind: section.offset for section in bundle.sections}
    yield f"; {bundle.text(bundle.model.name)} for {bundle.text(bundle.chip.name)}"
    for section in bundle.sections:
        end = section.offset + len(section.data)
        need = "required" if section.required else "optional"
        yield f"{section.offset:08x}..{end:08x}  {section.kind}  {need}, crc32 {section.crc32:08x}"
    yield ""
    yield from _record(bundle, "MODL", starts["MODL"], bundle.model)
    yield from _record(bundle, "CHIP", starts["CHIP"], bundle.chip)
    for index, buffer in enumerate(bundle.buffers):
        place = starts["BUFS"] + index * buffer.SIZE
        yield from _record(bundle, f"BUFS[{index}]", place, buffer)
    for index, layer in enumerate(bundle.layers):
        yield ""
        yield from _record(bundle, f"LAYR[{index}]", starts["LAYR"] + index * layer.SIZE, layer)
        yield from _step(bundle, layer)
        weights = starts["WGHT"] + layer.weight_offset
        yield f"{weights:08x}  WGHT  {_stream_shape(bundle, layer)}"
        for row in range(layer.channel_row, layer.channel_row + layer.out_channels):
            place = starts["CHAN"] + row * ChannelRecord.SIZE
            yield from _record(bundle, f"CHAN[{row}]", place, bundle.channels[row])
            if bundle.multipliers:
                place = starts["MULT"] + row * MultiplierRecord.SIZE
                yield from _record(bundle, f"MULT[{row}]", place, bundle.multipliers[row])
    height, width, _ = bundle.vectors.input.shape
    yield ""
    yield f"{starts['VECT']:08x}  VECT  width={width} height={height}"
    for layer, crc in zip(bundle.layers, bundle.vectors.layer_crc32, strict=True):
        yield f"          crc32 {crc:08x}  {bundle.text(layer.name)}"
    if bundle.stripes is not None:
        yield ""
        yield f"{starts['PLAN']:08x}  PLAN"
        yield from plan_lines(bundle.stripes)


def _record(bundle: Bundle, title: str, place: int, record: Record) -> Iterator[str]:
    """One line of flat fields, then one per view."""
    flat: list[str] = []
    views: list[str] = []
    for field in record.places():
        value = getattr(record, field.name)
        if isinstance(value, ViewRecord):
            views.append(f"{'':10}{field.name:7} {_view(bundle, value)}")
        elif field.name == "name":
            flat.insert(0, bundle.text(value))
        else:
            flat.append(f"{field.name}={_value(field.name, value)}")
    yield f"{place:08x}  {title}  {' '.join(flat)}"
    yield from views


def _value(name: str, value: int) -> str:
    if name == "op":
        return Op(value).name
    return f"{value:08x}" if name.endswith("crc32") else str(value)


def _view(bundle: Bundle, view: ViewRecord) -> str:
    if view == NO_VIEW:
        return "-"
    end = view.channel_offset + view.channels
    fields = dataclasses.asdict(view)
    del fields["buffer"], fields["channel_offset"], fields["channels"]
    numbers = " ".join(f"{name}={value}" for name, value in fields.items())
    return f"{_name(bundle, view)}[{view.channel_offset}:{end}] {numbers}"


def _name(bundle: Bundle, view: ViewRecord) -> str:
    return bundle.text(bundle.buffers[view.buffer].name)


def _stream_shape(bundle: Bundle, layer: LayerRecord) -> str:
    block = bundle.model.channel_block
    blocks = -(-layer.out_channels // block)
    shape: Sequence[int] = (blocks, layer.kernel, layer.kernel, layer.in_channels, block)
    return f"int8 {''.join(f'[{size}]' for size in shape)} crc32 {layer.weight_crc32:08x}"


def _step(bundle: Bundle, layer: LayerRecord) -> Iterator[str]:
    """What a layer does, in the arithmetic of docs/NUMERICS.md."""
    op, graph = Op(layer.op), bundle.graph()
    taps = "q" if op.kernel == 1 else "q[3x3]"
    at = "(2y, 2x)" if op is Op.CONV3X3_STRIDE2 else "(y, x)"
    yield f"{'':10}acc = bias + sum({taps} * w) around {at} of {_operand(bundle, layer.input)}"
    if layer.join != NO_VIEW:
        joined = "    + q * 2^join_shift of" if graph.dyadic else "q_r ="
        yield f"{'':10}{joined} {_operand(bundle, layer.join)}"
    if op is Op.TAIL:
        yield f"{'':10}out = {graph.formulas['tail_requantisation']}"
        return
    wide = bundle.buffers[layer.output.buffer].bits > contract.ACTIVATION_BITS
    rounded = graph.formulas["requantisation_16" if wide else "requantisation"]
    where = " at (2y + dy, 2x + dx)" if op is Op.UP else ""
    relu = ", at least 0" if layer.flags & RELU else ""
    yield f"{'':10}{_operand(bundle, layer.output)}{where} = {rounded}{relu}"


def _operand(bundle: Bundle, view: ViewRecord) -> str:
    """The address of channel c at (y, x) of a view, as docs/FORMAT.md computes it."""
    if bundle.buffers[view.buffer].kind:
        return "the image"
    value = f"(y * (Wp >> {view.level}) + x) * {view.pixel_stride} + {view.channel_offset} + c"
    if bundle.buffers[view.buffer].bits > contract.ACTIVATION_BITS:
        value = f"2 * ({value})"
    return f"[{view.address_per_cell} * cells + {value}]"


@click.command("disassemble")
@click.argument("bundle", type=PATH)
@click.option("--out", "out_file", type=PATH, help="Write the listing to this file.")
def disassemble_command(bundle: Path, out_file: Path | None) -> None:
    """List every record of BUNDLE with its place in the file, and what each layer does."""
    listing = disassemble(read_bundle(bundle))
    if out_file is None:
        click.echo(listing, nl=False)
    else:
        write_atomically(out_file, listing.encode("utf-8"))
