"""Export a graph: the bundle, and beside it the same numbers for people and toolchains.

model.slb    the bundle
weights.bin  section WGHT: the weights in streaming order
layers.json  everything else of the bundle; with weights.bin it rebuilds the graph
layers.csv   a row per layer: shapes, views, multiply-accumulates and bytes moved on one frame
model.h      the tables as C99 constants
model.packed.slb, when asked for: the bundle with compressed weights
"""

import csv
import dataclasses
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hls_export.bundle import Bundle, pack_bundle, read_bundle
from hls_export.c_header import c_header
from hls_export.compression import compress, weight_gain
from hls_export.document import bundle_document, graph_from_document, to_json
from hls_export.group_shape import FRAME
from hls_export.npu import Chip, load_chip
from hls_export.plan import traffic
from hls_export.plan_check import check_stripes
from hls_export.planner import plan_stripes
from hls_export.schedule import saved_by_joins, schedule
from quant.graph_files import load_graph
from quant.integer_graph import IntegerGraph

BUNDLE, PACKED, WEIGHTS, LAYERS, TABLE, HEADER = (
    "model.slb",
    "model.packed.slb",
    "weights.bin",
    "layers.json",
    "layers.csv",
    "model.h",
)


def export(
    graph: IntegerGraph | str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    chip: Chip | str | os.PathLike[str] = "reference",
    frame: tuple[int, int] = FRAME,
    stripes: bool = True,
    compress_weights: bool = False,
) -> Bundle:
    """Write the five files into `out_dir`, which is made when it is not there.

    graph: an IntegerGraph or the path of a saved one. chip: a Chip, the name of one that ships, or
    a path. frame: height, width in pixels, for layers.csv alone. stripes: plan how the chip runs
    the graph through its SRAM (docs/PLANNER.md). compress_weights: write a sixth file, the bundle
    with compressed weights.

    Every file is made and staged before the first takes its name, the bundle last. Returns the
    bundle as read back. Raises FileNotFoundError for a graph or chip that is not there, ValueError
    for one that is not valid or a graph that the chip cannot run.
    """
    if not isinstance(graph, IntegerGraph):
        graph = load_graph(graph)
    if not isinstance(chip, Chip):
        chip = load_chip(chip)
    planned = plan_stripes(graph, chip) if stripes else None
    if planned is not None:
        sram, block = chip.performance.sram_bytes, chip.capability.channel_block
        check_stripes(graph, planned, sram, block, FRAME)
    data = pack_bundle(graph, chip, planned)
    bundle = read_bundle(data)
    _write_all(
        Path(out_dir),
        {
            WEIGHTS: bundle.weights,
            LAYERS: to_json(bundle_document(bundle)).encode("ascii"),
            TABLE: pack_csv(layer_rows(bundle, frame)).encode("utf-8"),
            HEADER: c_header(bundle).encode("ascii"),
            **({PACKED: compress(data)} if compress_weights else {}),
            BUNDLE: data,
        },
    )
    return bundle


def _write_all(folder: Path, files: dict[str, bytes]) -> None:
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"export: out must be a folder, got the file {str(folder)!r}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as staged:
        for name, data in files.items():
            (Path(staged) / name).write_bytes(data)
        for name in files:
            os.replace(Path(staged) / name, folder / name)


def read_layers(out_dir: str | os.PathLike[str]) -> IntegerGraph:
    """The graph out of layers.json and weights.bin.

    Raises FileNotFoundError when one is missing, ValueError when they hold no valid graph.
    """
    folder = Path(out_dir)
    try:
        document = json.loads((folder / LAYERS).read_text(encoding="ascii"))
        return graph_from_document(document, (folder / WEIGHTS).read_bytes())
    except (ValueError, RecursionError) as error:  # the second for nests too deep to decode
        raise ValueError(f"{folder / LAYERS}: {error}") from error


def summary(bundle: Bundle, chip: Chip, frame: tuple[int, int] = FRAME) -> dict[str, Any]:
    """What an export made, in JSON types; frame: height, width of the figures that depend on it."""
    graph, block = bundle.graph(), bundle.model.channel_block
    stripes = bundle.stripes
    found: dict[str, Any] = {
        "model": bundle.text(bundle.model.name),
        "chip": bundle.text(bundle.chip.name),
        "bytes": bundle.bytes,
        "sections": {section.kind: len(section.data) for section in bundle.sections},
        "layers": len(bundle.layers),
        "frame": {"width": frame[1], "height": frame[0]},
        "compressed_weights": weight_gain(bundle),
        "saved_by_joins": saved_by_joins(schedule(graph, block, *frame)),
        "plan": None,
    }
    if stripes is not None:
        moved = traffic(graph, stripes, block, *frame, chip.performance.weight_decoder)
        found["plan"] = {
            "sram_bytes": stripes.sram,
            "groups": len(stripes.groups),
            "dram_bytes": moved.total,
            "recomputed": moved.recomputed,
        }
    return found


def layer_rows(bundle: Bundle, frame: tuple[int, int] = FRAME) -> list[dict[str, str | int]]:
    """The rows of layers.csv; frame: height, width in pixels."""
    steps = schedule(bundle.graph(), bundle.model.channel_block, *frame)
    rows: list[dict[str, str | int]] = []
    for index, (entry, step) in enumerate(
        zip(bundle_document(bundle)["layers"], steps, strict=True)
    ):
        numbers = dataclasses.asdict(step)
        del numbers["layer"]
        rows.append(
            {
                "index": index,
                **{key: entry[key] for key in ("name", "op", "kernel", "stride")},
                "relu": int(entry["relu"]),
                **{side: slice_text(entry[side]) for side in ("input", "join", "output")},
                **{
                    key: entry[key]
                    for key in ("in_channels", "out_channels", "accumulator_bits", "weight_offset")
                },
                **numbers,
            }
        )
    return rows


def slice_text(view: dict[str, Any] | None) -> str:
    """A view as buffer[first channel:end]."""
    if view is None:
        return ""
    start = view["channel_offset"]
    return f"{view['buffer']}[{start}:{start + view['channels']}]"


def pack_csv(rows: list[dict[str, str | int]]) -> str:
    """Rows of equal keys as CSV with a header line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


_TEXT = ("name", "op", "input", "join", "output")


def read_csv(path: str | os.PathLike[str]) -> list[dict[str, str | int]]:
    """What `pack_csv` wrote: columns of numbers as int."""
    with open(path, encoding="utf-8", newline="") as file:
        return [
            {key: value if key in _TEXT else int(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
