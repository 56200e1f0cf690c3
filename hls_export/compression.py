"""Bundles with compressed weights: section WRIC in the place of WGHT, lossless (docs/FORMAT.md).

A compressed bundle is what lies in flash or travels to a device; `decompress` here and
`sl_decompress` of csrc/runtime give the plain one back, byte for byte. Nothing runs it as it is.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from hls_export import blobs, container, rice
from hls_export.bundle import Bundle, load_bytes, read_bundle
from hls_export.container import PACKED_WEIGHTS, WEIGHTS
from hls_export.layer_table import (
    LayerRecord,
    ModelRecord,
    PackedWeightsRecord,
    StreamRecord,
    TrailerRecord,
    pack_table,
    unpack_table,
)
from hls_export.options import PATH
from starlight.files import write_atomically

FORMAT_MAJOR = 2  # that brought section WRIC
HEAD = PackedWeightsRecord.SIZE


@dataclass(frozen=True)
class Stream:
    """A layer's weights as codes of parameter k, and the bytes that they stand for."""

    layer: str
    k: int
    codes: bytes
    plain_bytes: int


def streams(bundle: Bundle) -> tuple[Stream, ...]:
    """Every layer's codes, each with the parameter that takes the fewest bits."""
    found = []
    for record in bundle.layers:
        end = record.weight_offset + record.weight_bytes
        weights = np.frombuffer(bundle.weights[record.weight_offset : end], np.int8)
        k = rice.best_parameter(weights)
        codes = rice.encode(weights, k)
        found.append(Stream(bundle.text(record.name), k, codes, record.weight_bytes))
    return tuple(found)


def weight_gain(bundle: Bundle) -> dict[str, Any]:
    """Bytes of the weights, plain and compressed, of the bundle and of each layer; JSON types."""
    found = streams(bundle)
    plain, codes = sum(s.plain_bytes for s in found), sum(len(s.codes) for s in found)
    return {
        "plain_bytes": plain,
        "compressed_bytes": codes,
        "share": codes / plain,
        "layers": {
            s.layer: {"k": s.k, "plain_bytes": s.plain_bytes, "compressed_bytes": len(s.codes)}
            for s in found
        },
    }


def compress(bundle: bytes) -> bytes:
    """A plain bundle -> the same with compressed weights.

    Raises ValueError for bytes that are no valid plain bundle.
    """
    opened = read_bundle(bundle)
    header = container.read_header(bundle)
    found = streams(opened)
    head = PackedWeightsRecord(
        len(found), header.format_major, header.format_minor, _sha256(bundle)
    )
    start = HEAD + len(found) * StreamRecord.SIZE
    _, *offsets, end = blobs.layer_offsets([start, *(len(stream.codes) for stream in found)])
    packed = bytearray(end)
    packed[:start] = head.pack() + pack_table(
        StreamRecord(offset, len(stream.codes), stream.k)
        for stream, offset in zip(found, offsets, strict=True)
    )
    for stream, offset in zip(found, offsets, strict=True):
        packed[offset : offset + len(stream.codes)] = stream.codes
    return _replaced(opened.sections, WEIGHTS, PACKED_WEIGHTS, bytes(packed), FORMAT_MAJOR)


def decompress(packed: bytes) -> bytes:
    """A bundle with compressed weights -> the plain one that it was made of, byte for byte.

    Raises ValueError naming the first thing that does not hold: the container, a stream, a layer's
    CRC-32, or the SHA-256 of the plain bundle. What else a bundle says, `read_bundle` checks.
    """
    sections = container.read_container(packed, PACKED_WEIGHTS)
    content = {section.kind: section.data for section in sections}
    size = len(content["MODL"])
    _require(size == ModelRecord.SIZE, "MODL size", f"be {ModelRecord.SIZE}", size)
    model = ModelRecord.unpack(content["MODL"], "MODL")
    layers = unpack_table(LayerRecord, content["LAYR"], "LAYR")
    data = content[PACKED_WEIGHTS]
    _require(len(data) >= HEAD, f"{PACKED_WEIGHTS} size", f"be at least {HEAD}", len(data))
    head = PackedWeightsRecord.unpack(data[:HEAD], PACKED_WEIGHTS)
    majors = container.FORMAT_MAJORS
    _require(head.plain_major in majors, "plain format", f"be among {majors}", head.plain_major)
    records = unpack_table(
        StreamRecord, data[HEAD : HEAD + len(layers) * StreamRecord.SIZE], PACKED_WEIGHTS
    )
    counts = {model.layer_count, head.layer_count, len(layers), len(records)}
    _require(len(counts) == 1, "layers", "agree in MODL, LAYR and WRIC", sorted(counts))
    _check_streams(model, layers, records, data)
    weights = bytearray(model.weight_bytes)
    for index, (layer, record) in enumerate(zip(layers, records, strict=True)):
        codes = data[record.offset : record.offset + record.bytes]
        try:
            plain = rice.decode(codes, layer.weight_bytes, record.k).tobytes()
        except ValueError as error:
            raise ValueError(f"bundle: layer {index}, {error}") from error
        crc, stored = zlib.crc32(plain), layer.weight_crc32
        _require(crc == stored, f"layer {index} weights' CRC-32", f"be {stored:08x}", f"{crc:08x}")
        weights[layer.weight_offset : layer.weight_offset + len(plain)] = plain
    result = _replaced(sections, PACKED_WEIGHTS, WEIGHTS, bytes(weights), head.plain_major)
    sha256 = _sha256(result)
    _require(sha256 == head.plain_sha256, "SHA-256", f"be {head.plain_sha256.hex()}", sha256.hex())
    return result


def _check_streams(
    model: ModelRecord,
    layers: Sequence[LayerRecord],
    records: Sequence[StreamRecord],
    data: bytes,
) -> None:
    """Streams one behind the other, each long enough for its layer's weights, which fill WGHT."""
    end, weights_end = HEAD + len(records) * StreamRecord.SIZE, 0
    for index, (layer, record) in enumerate(zip(layers, records, strict=True)):
        what = f"stream {index}"
        start = _align(end)
        _require(record.offset == start, f"{what} offset", f"be {start}", record.offset)
        _require(not any(data[end:start]), f"{what} padding", "be 0", "others")
        end = start + record.bytes
        _require(end <= len(data), f"{what} end", f"be at most {len(data)}", end)
        k, most = record.k, rice.PARAMETERS[-1]
        _require(k <= most, f"{what} k", f"be at most {most}", k)
        room = 8 * record.bytes // (k + 1)
        size = layer.weight_bytes
        _require(size <= room, f"layer {index} weights", f"be at most {room}", size)
        start = _align(weights_end)
        offset = layer.weight_offset
        _require(offset == start, f"layer {index} weight offset", f"be {start}", offset)
        weights_end = start + size
    _require(end == len(data), "streams' end", f"be {len(data)}", end)
    _require(
        weights_end == model.weight_bytes, "weight bytes", f"be {weights_end}", model.weight_bytes
    )


def _align(size: int) -> int:
    return -(-size // blobs.WEIGHT_ALIGNMENT) * blobs.WEIGHT_ALIGNMENT


def _sha256(bundle: bytes) -> bytes:
    """The hash in a bundle's trailer."""
    return TrailerRecord.unpack(bundle[len(bundle) - TrailerRecord.SIZE :], "trailer").sha256


def _replaced(
    sections: Sequence[container.Section], old: str, new: str, data: bytes, major: int
) -> bytes:
    """The file with section `new` in the place of `old`."""
    return container.pack_container(
        [
            (new, True, data) if each.kind == old else (each.kind, each.required, each.data)
            for each in sections
        ],
        major,
    )


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"bundle: {name} must {rule}, got {value}")


@click.command("decompress")
@click.argument("packed", type=PATH)
@click.argument("out", type=PATH)
def decompress_command(packed: Path, out: Path) -> None:
    """Write the plain bundle that PACKED was made of, byte for byte, as OUT."""
    data = load_bytes(packed)
    plain = decompress(data)
    read_bundle(plain)
    write_atomically(out, plain)
    click.echo(f"{out}: {len(plain)} bytes, from {len(data)}")
