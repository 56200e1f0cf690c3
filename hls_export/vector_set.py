"""Vectors for those who port the arithmetic to RTL or firmware: `python -m hls_export vectors`.

OUT/corners/CASE/   a corner case of one operation (hls_export.corners): model.slb, whose own test
                    vectors are the case; what its layer under test reads and writes as raw bytes
OUT/layers/         of a bundle given: what every layer writes on the bundle's own frame
OUT/index.json      what is what: shapes, what each channel is for, CRC-32 of every file

The golden model (quant.interpret) makes every number.
"""

import dataclasses
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from hls_export import blobs, container
from hls_export.bundle import Bundle, pack_bundle, read_bundle
from hls_export.corners import UNDER_TEST, Case, corner_cases
from hls_export.layer_table import pack_table
from hls_export.npu import Chip, load_chip
from hls_export.vectors import pack_vectors, vectors_of
from quant import interpret
from quant.integer_graph import IMAGE, View
from quant.interpret import Trace
from starlight.files import write_atomically, write_json

INDEX, MODEL = "index.json", "model.slb"


def pack_case(case: Case, chip: Chip) -> bytes:
    """The bundle of a case: its graph for a chip, with the case's frame as its test vectors."""
    vectors = pack_vectors(vectors_of(case.graph, case.frame))
    sections = container.read_container(pack_bundle(case.graph, chip))
    return container.pack_container(
        [
            (section.kind, section.required, vectors if section.kind == "VECT" else section.data)
            for section in sections
        ]
    )


def fitting_cases(chip: Chip) -> Iterator[Case]:
    """The cases whose operations and frame the chip takes."""
    capability = chip.capability
    for case in corner_cases(capability.accumulator_bits):
        height, width, _ = case.frame.shape
        ops = {layer.op.name for layer in case.graph.layers}
        if (
            ops <= set(capability.ops)
            and height <= capability.max_height
            and width <= capability.max_width
        ):
            yield case


def case_files(case: Case, chip: Chip) -> tuple[dict[str, bytes], dict[str, Any]]:
    """File name -> bytes of a case, and its entry of the index.

    input, join: int8 [h, w, C] that the layer under test reads; weights, channels: as they lie in
    the bundle; output: int8 [h, w, C] that it writes, for the tail uint8 [Hp, Wp, 3].
    """
    data = pack_case(case, chip)
    bundle = read_bundle(data)
    graph = bundle.graph()
    _, trace = interpret.run_traced(graph, case.frame)
    index, layer = next(
        (index, layer) for index, layer in enumerate(graph.layers) if layer.name == UNDER_TEST
    )
    record = bundle.layers[index]
    rows = bundle.channels[record.channel_row : record.channel_row + record.out_channels]
    maps = {"input": _read(bundle, trace, case, layer.input), "output": trace[UNDER_TEST]}
    if layer.join is not None:
        maps["join"] = _read(bundle, trace, case, layer.join)
    files = {
        MODEL: data,
        "weights.bin": blobs.to_stream(layer.weight, chip.capability.channel_block),
        "channels.bin": pack_table(rows),
        **{f"{name}.bin": np.ascontiguousarray(array).tobytes() for name, array in maps.items()},
    }
    entry = {
        "op": layer.op.name,
        "relu": layer.relu,
        "channel_block": chip.capability.channel_block,
        "weight_shape": list(layer.weight.shape),
        **{name: _map_entry(array) for name, array in sorted(maps.items())},
        "corners": list(case.corners),
    }
    return files, entry


def _read(bundle: Bundle, trace: Trace, case: Case, view: View) -> npt.NDArray[np.int8]:
    """The values of a view that one layer writes, or of the image."""
    if view.buffer == IMAGE:
        padded = interpret.pad_to_grid(case.frame, bundle.graph().grid)
        return interpret.intmath.quantise_image(padded)[:, :, view.offset : view.end]
    writer = next(layer for layer in bundle.graph().layers if layer.output == view)
    return trace[writer.name].astype(np.int8)


def _map_entry(array: npt.NDArray[np.integer[Any]]) -> dict[str, Any]:
    return {"dtype": str(array.dtype), "shape": list(array.shape)}


def layer_files(bundle: Bundle) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """(file name, bytes, entry of the index) of every layer on the bundle's own frame."""
    frame = bundle.vectors.input
    output, trace = interpret.run_traced(bundle.graph(), frame)
    yield "frame.bin", frame.tobytes(), _map_entry(frame)
    for index, (name, array) in enumerate(trace.items()):
        yield f"{index:03}-{name}.bin", np.ascontiguousarray(array).tobytes(), _map_entry(array)
    yield "result.bin", output.tobytes(), _map_entry(output)


def write_vectors(out: Path, chip: Chip, bundle: Bundle | None = None) -> dict[str, Any]:
    """Write the set; returns the index. Raises NotADirectoryError when `out` is a file."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"vectors: out must be a folder, got the file {str(out)!r}")
    corners: dict[str, Any] = {}
    layers: dict[str, Any] = {}
    for case in fitting_cases(chip):
        files, entry = case_files(case, chip)
        for name, data in files.items():
            _put(out / "corners" / case.name / name, data)
        corners[case.name] = {**entry, "crc32": _crcs(files)}
    if bundle is not None:
        for name, data, entry in layer_files(bundle):
            _put(out / "layers" / name, data)
            layers[name] = {**entry, "crc32": zlib.crc32(data)}
    index = {"chip": dataclasses.asdict(_layout(chip)), "corners": corners, "layers": layers}
    write_json(out / INDEX, index)
    return index


@dataclasses.dataclass(frozen=True)
class _Layout:
    name: str
    channel_block: int
    accumulator_bits: int


def _layout(chip: Chip) -> _Layout:
    return _Layout(chip.name, chip.capability.channel_block, chip.capability.accumulator_bits)


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)


def _crcs(files: dict[str, bytes]) -> dict[str, int]:
    return {name: zlib.crc32(data) for name, data in sorted(files.items())}


@click.command("vectors")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--chip", default="reference", show_default=True, help="A name, or a .toml file.")
@click.option(
    "--bundle", "bundle_file", type=click.Path(path_type=Path), help="Its layers, value by value."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="The index there too.")
def vectors_command(out: Path, chip: str, bundle_file: Path | None, json_file: Path | None) -> None:
    """Write test vectors into OUT: corner cases of each operation, and the layers of a bundle."""
    loaded = load_chip(chip)
    index = write_vectors(out, loaded, None if bundle_file is None else read_bundle(bundle_file))
    if json_file is not None:
        write_json(json_file, index)
    layers = f", {len(index['layers'])} files of layers" if index["layers"] else ""
    click.echo(f"{out}: {len(index['corners'])} corner cases{layers}, {out / INDEX}")
