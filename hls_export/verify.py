"""Prove that every machine computes the same bits from a bundle, layer by layer.

The numpy interpreter is the reference. Each machine runs the bundle's own test vectors and then the
image; the reference is held against the vectors' CRCs, every other machine against the reference.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click
import numpy as np
import numpy.typing as npt

from hls_export.bundle import Bundle, read_bundle
from hls_export.executors import EXECUTORS, Executor, Result
from quant.intmath import UInt8Array
from starlight.denoise.images import read_image
from starlight.files import write_json

Status = Literal["PASS", "FAIL", "SKIP"]
VECTORS = "vectors"
OUTPUT = "output"


@dataclass(frozen=True)
class Verdict:
    """One machine on one image.

    machine  name of the executor
    image    "vectors" for the bundle's own frame, else "image"
    against  what it was compared with
    detail   layers compared, the first difference, or the reason of a skip
    """

    machine: str
    image: str
    against: str
    status: Status
    detail: str

    def __str__(self) -> str:
        return f"{self.status} {self.machine} on {self.image} = {self.against}: {self.detail}"


def verify(
    bundle: bytes,
    image: UInt8Array | None = None,
    executors: Sequence[Executor] = EXECUTORS,
) -> list[Verdict]:
    """Run every machine on the bundle's vectors and on `image` (uint8 [H, W, 3]) when one is given.

    The first executor is the reference. Returns a verdict per machine and image; a machine that is
    not there is skipped, one that refuses has failed. Raises ValueError when the bundle itself is
    damaged.
    """
    opened = read_bundle(bundle)
    frames = {VECTORS: opened.vectors.input}
    if image is not None:
        frames["image"] = image
    return [
        verdict
        for where, frame in frames.items()
        for verdict in _verify_frame(opened, bundle, where, frame, executors)
    ]


def _verify_frame(
    opened: Bundle, bundle: bytes, where: str, frame: UInt8Array, executors: Sequence[Executor]
) -> Iterable[Verdict]:
    golden, *machines = executors
    reference = golden.run(bundle, frame)
    compared = f"{len(reference.layers)} layers and output, {frame.shape[1]}x{frame.shape[0]}"
    if where == VECTORS:
        difference = compare_vectors(opened, reference)
        yield _judge(golden.name, where, "CRCs in the bundle", difference, compared)
    for machine in machines:
        reason = machine.available()
        if reason is not None:
            yield Verdict(machine.name, where, golden.name, "SKIP", reason)
            continue
        try:
            result = machine.run(bundle, frame)
        except (TypeError, ValueError) as error:
            yield Verdict(machine.name, where, golden.name, "FAIL", f"refused, {error}")
            continue
        difference = compare_results(result, reference)
        yield _judge(machine.name, where, golden.name, difference, compared)


def _judge(machine: str, where: str, against: str, difference: str | None, same: str) -> Verdict:
    if difference is None:
        return Verdict(machine, where, against, "PASS", f"{same} equal")
    return Verdict(machine, where, against, "FAIL", difference)


def compare_vectors(bundle: Bundle, result: Result) -> str | None:
    """None, or the first layer whose CRC-32 differs from the bundle's vectors, or the output."""
    for (name, got), expected in zip(
        result.layers.items(), bundle.vectors.layer_crc32, strict=True
    ):
        crc = zlib.crc32(np.ascontiguousarray(got).tobytes())
        if crc != expected:
            return f"layer {name} must have CRC-32 {expected:08x}, got {crc:08x}"
    return _first_difference(OUTPUT, result.output, bundle.vectors.output)


def compare_results(result: Result, reference: Result) -> str | None:
    """None, or the first layer and index where `result` differs from `reference`, both values."""
    if list(result.layers) != list(reference.layers):
        return f"layers must be {list(reference.layers)}, got {list(result.layers)}"
    for name, expected in reference.layers.items():
        difference = _first_difference(f"layer {name}", result.layers[name], expected)
        if difference is not None:
            return difference
    return _first_difference(OUTPUT, result.output, reference.output)


def _first_difference(
    what: str, got: npt.NDArray[np.integer], expected: npt.NDArray[np.integer]
) -> str | None:
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return f"{what} must be {expected.dtype} {expected.shape}, got {got.dtype} {got.shape}"
    if np.array_equal(got, expected):
        return None
    places = np.argwhere(got != expected)
    y, x, c = (int(i) for i in places[0])
    return (
        f"{what} differs at [y {y}, x {x}, channel {c}]: must be {int(expected[y, x, c])}, "
        f"got {int(got[y, x, c])} ({len(places)} of {got.size} values differ)"
    )


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--image",
    "image_file",
    type=click.Path(path_type=Path),
    help="Run this image too, beside the bundle's own test vectors.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the verdicts to this file."
)
def verify_command(bundle: Path, image_file: Path | None, json_file: Path | None) -> None:
    """Run BUNDLE on every machine there is and compare all layers; exit 1 on any difference."""
    if not bundle.is_file():
        raise FileNotFoundError(f"bundle: file must exist, got {str(bundle)!r}")
    image = None if image_file is None else read_image(image_file)
    verdicts = verify(bundle.read_bytes(), image)
    for verdict in verdicts:
        click.echo(verdict)
    if json_file is not None:
        document = {"bundle": bundle.name, "verdicts": [asdict(verdict) for verdict in verdicts]}
        write_json(json_file, document)
    if any(verdict.status == "FAIL" for verdict in verdicts):
        raise SystemExit(1)
