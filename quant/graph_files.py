"""IntegerGraphs as files: JSON for structure, .npz for the arrays."""

import dataclasses
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from quant import contract
from quant.contract import Op
from quant.integer_graph import (
    ARRAYS,
    Buffer,
    IntArray,
    IntegerGraph,
    Layer,
    Requantisation,
    View,
    layer_arrays,
)
from starlight.files import write_atomically

_T = TypeVar("_T")


def graph_to_dict(graph: IntegerGraph) -> dict[str, Any]:
    """Everything of a graph but its arrays, in JSON types."""
    return {
        "arithmetic": graph.arithmetic,
        "arithmetic_version": contract.ARITHMETIC_VERSION,
        **graph.formulas,
        "name": graph.name,
        "levels": graph.levels,
        "buffers": [_buffer_entry(graph, buffer) for buffer in graph.buffers],
        "layers": [
            {
                "name": layer.name,
                "op": layer.op.name,
                "input": dataclasses.asdict(layer.input),
                "output": layer.output and dataclasses.asdict(layer.output),
                "join": layer.join and dataclasses.asdict(layer.join),
                "relu": layer.relu,
                **_weight_bits_entry(layer),
            }
            for layer in graph.layers
        ],
    }


def _buffer_entry(graph: IntegerGraph, buffer: Buffer) -> dict[str, Any]:
    entry = dataclasses.asdict(buffer)
    del entry["real_scale"]
    return entry if graph.dyadic else {**entry, "scale": buffer.scale}


def _weight_bits_entry(layer: Layer) -> dict[str, int]:
    return {} if layer.weight_bits == contract.WEIGHT_BITS else {"weight_bits": layer.weight_bits}


def save_graph(graph: IntegerGraph, path: str | os.PathLike[str]) -> None:
    """Write `path` (JSON) and, beside it with the suffix .npz, the arrays; each atomically."""
    path = Path(path)
    arrays: dict[str, Any] = {
        f"{layer.name}.{name}": array
        for layer in graph.layers
        for name, array in layer_arrays(layer).items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path.with_suffix(".npz"), buffer.getvalue())
    write_atomically(path, (json.dumps(graph_to_dict(graph), indent=1) + "\n").encode())


# What json, zipfile and numpy raise on damaged files beside ValueError.
_MALFORMED = (
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_graph(path: str | os.PathLike[str]) -> IntegerGraph:
    """Read what `save_graph` wrote.

    Raises FileNotFoundError when a file is missing, ValueError when its content is no valid graph.
    """
    path = Path(path)
    for part in (path, path.with_suffix(".npz")):
        if not part.is_file():
            raise FileNotFoundError(f"graph {path}: {part.name} must exist beside it, found none")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        arithmetic = _typed(document, "arithmetic", str)
        rule = f"be one of {', '.join(contract.ARITHMETICS)}"
        _require(arithmetic in contract.ARITHMETICS, "document", "arithmetic", rule, arithmetic)
        dyadic = arithmetic == contract.ARITHMETIC
        graph = IntegerGraph(
            name=_typed(document, "name", str),
            levels=_typed(document, "levels", int),
            buffers=tuple(_load_buffer(entry, dyadic) for entry in document["buffers"]),
            layers=tuple(_load_layers(document, arrays, dyadic)),
            arithmetic=arithmetic,
        )
        _check_versions(document, graph)
        return graph
    except _MALFORMED as error:
        raise ValueError(
            f"graph {path}: content must be a saved IntegerGraph, got {error!r}"
        ) from error
    except ValueError as error:
        raise ValueError(f"graph {path}: {error}") from error


def _check_versions(document: Mapping[str, Any], graph: IntegerGraph) -> None:
    expected = {"arithmetic_version": contract.ARITHMETIC_VERSION, **graph.formulas}
    for name, value in expected.items():
        _require(document[name] == value, "document", name, f"be {value!r}", document[name])


def _typed(entry: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    """entry[name], which must be of the very type: JSON's true is no integer, 3.5 no level."""
    value = entry[name]
    _require(type(value) is kind, "document", name, f"be of type {kind.__name__}", repr(value))
    return cast(_T, value)


_BUFFER: dict[str, type] = {
    "name": str,
    "channels": int,
    "level": int,
    "exponent": int,
    "bits": int,
}
_VIEW: dict[str, type] = {"buffer": str, "offset": int, "channels": int}


def _load_record(record: type[_T], fields: Mapping[str, type], entry: Mapping[str, Any]) -> _T:
    """A Buffer or View from exactly these fields."""
    _require(set(entry) == set(fields), record.__name__, "fields", f"be {list(fields)}", entry)
    return record(**{name: _typed(entry, name, kind) for name, kind in fields.items()})


def _load_view(entry: Mapping[str, Any]) -> View:
    return _load_record(View, _VIEW, entry)


def _load_buffer(entry: Mapping[str, Any], dyadic: bool) -> Buffer:
    if dyadic:
        return _load_record(Buffer, _BUFFER, entry)
    scale = _typed(entry, "scale", float)
    rest = {name: value for name, value in entry.items() if name != "scale"}
    return dataclasses.replace(_load_record(Buffer, _BUFFER, rest), real_scale=scale)


def _load_layers(
    document: Mapping[str, Any], arrays: Mapping[str, IntArray], dyadic: bool
) -> Iterator[Layer]:
    for entry in document["layers"]:
        name = _typed(entry, "name", str)
        output, join = entry["output"], entry["join"]
        yield Layer(
            name=name,
            op=Op[entry["op"]],
            input=_load_view(entry["input"]),
            output=None if output is None else _load_view(output),
            join=None if join is None else _load_view(join),
            relu=_typed(entry, "relu", bool),
            **{key: arrays[f"{name}.{key}"] for key in ARRAYS},
            weight_bits=_typed({"weight_bits": contract.WEIGHT_BITS, **entry}, "weight_bits", int),
            multipliers=None
            if dyadic
            else Requantisation(*(arrays[f"{name}.{key}"] for key in Requantisation._fields)),
        )


def _require(holds: bool, what: str, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{what}: {name} must {rule}, got {value}")
