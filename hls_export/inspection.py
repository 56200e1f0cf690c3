"""What a bundle says, for the terminal: header, sections with their CRCs, chip, layers, addresses.

A damaged bundle is shown as far as its section table can be read, with the reason it is refused.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hls_export import container
from hls_export.bundle import load_bytes, read_bundle
from hls_export.document import CHANNEL_NUMBERS, bundle_document
from hls_export.memory import cells


def inspect_bundle(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON document of header, sections and, when nothing is wrong, everything but numbers.

    `error` is None, or why the bundle is refused. Raises FileNotFoundError when there is no such
    file, ValueError when not even the section table can be read.
    """
    data = load_bytes(path)
    try:
        sections = container.read_table(data)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    header = dataclasses.asdict(container.read_header(data))
    del header["magic"]
    found: dict[str, Any] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "header": header,
        "sections": [
            {
                "kind": section.kind,
                "required": section.required,
                "offset": section.offset,
                "bytes": len(section.data),
                "crc32": section.crc32,
                "intact": section.intact,
            }
            for section in sections
        ],
        "error": None,
    }
    try:
        bundle = read_bundle(data)
    except ValueError as error:
        found["error"] = str(error)
        return found
    found.update(bundle_document(bundle))
    for layer in found["layers"]:
        for name in CHANNEL_NUMBERS:
            del layer[name]
        layer.pop("multipliers", None)
    found["meta"] = bundle.meta
    found["vectors"] = {
        "height": bundle.vectors.input.shape[0],
        "width": bundle.vectors.input.shape[1],
    }
    found["arena_lower_bound_per_cell"] = bundle.plan.peak
    return found


def render(found: Mapping[str, Any]) -> str:
    """`inspect_bundle` as text of aligned columns."""
    return "\n".join(line.rstrip() for line in _lines(found))


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    header = found["header"]
    yield (
        f"format {header['format_major']}.{header['format_minor']}, "
        f"arithmetic version {header['arithmetic_version']}, {header['file_bytes']} bytes"
    )
    yield f"sha256 {found['sha256']}"
    yield ""
    yield from table_lines(
        ("section", "required", "offset", "bytes", "crc32", "crc"),
        [
            (
                section["kind"],
                "yes" if section["required"] else "no",
                section["offset"],
                section["bytes"],
                f"{section['crc32']:08x}",
                "ok" if section["intact"] else "BAD",
            )
            for section in found["sections"]
        ],
    )
    if found["error"] is None:
        yield from _contents(found)


def _contents(found: Mapping[str, Any]) -> Iterator[str]:
    model, chip = found["model"], found["chip"]
    grid = 1 << model["levels"]
    macs = sum(layer["macs_per_cell"] for layer in found["layers"])
    yield ""
    yield (
        f"model  {model['name']}: grid {grid}x{grid}, {macs / grid**2:.0f} MAC/pixel, "
        f"{model['weight_bytes']} weight bytes, {found['arithmetic']}"
    )
    largest = cells(model["levels"], chip["max_height"], chip["max_width"])
    yield (
        f"arena  {model['arena_bytes_per_cell']} bytes per cell of {grid}x{grid} pixels "
        f"(no plan needs less than {found['arena_lower_bound_per_cell']}), "
        f"{model['arena_bytes_per_cell'] * largest} bytes for the largest frame"
    )
    yield (
        f"chip   {chip['name']}: channel block {chip['channel_block']}, alignment "
        f"{chip['alignment']}, accumulator {chip['accumulator_bits']} bits, frames up to "
        f"{chip['max_width']}x{chip['max_height']}, capability crc32 "
        f"{chip['capability_crc32']:08x}"
    )
    yield f"frame  {found['vectors']['width']}x{found['vectors']['height']} test vector"
    yield ""
    yield from table_lines(
        ("buffer", "channels", "level", "exponent", "address", "bytes", "live"),
        [
            (
                buffer["name"],
                buffer["channels"],
                buffer["level"],
                buffer["exponent"],
                buffer["address_per_cell"] if buffer["kind"] == 0 else "-",
                buffer["bytes_per_cell"],
                f"{buffer['first_layer']}..{buffer['last_layer']}",
            )
            for buffer in found["buffers"]
        ],
    )
    yield ""
    yield from table_lines(
        ("layer", "name", "op", "input", "join", "output", "relu", "acc", "weights", "MAC/cell"),
        [
            (
                index,
                layer["name"],
                layer["op"],
                _view(layer["input"]),
                _view(layer["join"]),
                _view(layer["output"]),
                "relu" if layer["relu"] else "-",
                layer["accumulator_bits"],
                f"{layer['weight_offset']}+{layer['weight_bytes']}",
                layer["macs_per_cell"],
            )
            for index, layer in enumerate(found["layers"])
        ],
    )


def _view(view: Mapping[str, Any] | None) -> str:
    """address+channel offset:end, the addresses being per cell."""
    if view is None:
        return "-"
    start = view["channel_offset"]
    return f"{view['buffer']}@{view['address_per_cell']}[{start}:{start + view['channels']}]"


def table_lines(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Columns as wide as their widest cell; columns of numbers to the right."""
    columns = list(zip(*rows, strict=True)) or [()] * len(titles)
    widths = [
        max(len(str(cell)) for cell in (title, *column))
        for title, column in zip(titles, columns, strict=True)
    ]
    right = [any(isinstance(cell, int) for cell in column) for column in columns]
    for row in (titles, *rows):
        yield "  ".join(
            str(cell).rjust(width) if to_right else str(cell).ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
