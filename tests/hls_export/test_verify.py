"""verify: equal machines pass, any other is named by layer, index and both values."""

import dataclasses
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from strategies import TINY, random_graph, random_image

from hls_export.__main__ import main
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.container import pack_container, read_container
from hls_export.executors import EXECUTORS, Result
from hls_export.npu import load_chip
from hls_export.verify import Verdict, verify
from quant.intmath import UInt8Array

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = load_chip("reference")
GRAPH = random_graph(1, TINY)
BUNDLE = pack_bundle(GRAPH, REFERENCE)
GOLDEN, C_RUNTIME = EXECUTORS[0], EXECUTORS[1]


@dataclasses.dataclass(frozen=True)
class OtherBundle:
    """The C runtime, fed another bundle than it was given."""

    bundle: bytes
    name: str = "other"

    def available(self) -> str | None:
        return None

    def run(self, bundle: bytes, image: UInt8Array) -> Result:
        return C_RUNTIME.run(self.bundle, image)


@dataclasses.dataclass(frozen=True)
class Absent:
    name: str = "absent"

    def available(self) -> str | None:
        return "simulator must be installed"

    def run(self, bundle: bytes, image: UInt8Array) -> Result:
        raise AssertionError("an absent machine must not be run")


def changed_weight(layer: str) -> bytes:
    """A bundle with the largest weight of a layer negated, and the vectors of the first."""
    layers = list(GRAPH.layers)
    index = [entry.name for entry in layers].index(layer)
    weight = layers[index].weight.copy()
    weight.flat[np.abs(weight).argmax()] *= -1
    layers[index] = dataclasses.replace(layers[index], weight=weight)
    changed = pack_bundle(dataclasses.replace(GRAPH, layers=tuple(layers)), REFERENCE)
    vectors = {s.kind: s.data for s in read_container(BUNDLE)}["VECT"]
    return pack_container(
        [
            (s.kind, s.required, vectors if s.kind == "VECT" else s.data)
            for s in read_container(changed)
        ]
    )


def test_all_machines_pass_on_vectors_and_image() -> None:
    verdicts = verify(BUNDLE, random_image(2, 9, 14))
    machines = [executor.name for executor in EXECUTORS[1:] if executor.available() is None]
    passed = [(v.machine, v.image) for v in verdicts if v.status == "PASS"]
    assert passed == [
        ("numpy", "vectors"),
        *((name, "vectors") for name in machines),
        *((name, "image") for name in machines),
    ]
    assert "c" in machines
    assert all(verdict.status != "FAIL" for verdict in verdicts)
    assert str(verdicts[1]) == "PASS c on vectors = numpy: 17 layers and output, 37x21 equal"


@pytest.mark.parametrize("layer", ["head", "middle.dense.conv2", "decoder.0.up", "tail"])
def test_planted_weight_is_named_by_layer_and_index(layer: str) -> None:
    other, image = changed_weight(layer), random_image(3, 8, 10)
    _, on_vectors, on_image = verify(BUNDLE, image, (GOLDEN, OtherBundle(other)))
    assert (on_vectors.status, on_image.status) == ("FAIL", "FAIL")
    expected = GOLDEN.run(BUNDLE, image).layers[layer]
    got = GOLDEN.run(other, image).layers[layer]
    places = np.argwhere(got != expected)
    y, x, c = places[0]
    assert on_image.detail == (
        f"layer {layer} differs at [y {y}, x {x}, channel {c}]: must be {expected[y, x, c]}, "
        f"got {got[y, x, c]} ({len(places)} of {got.size} values differ)"
    )


def test_bundle_whose_vectors_do_not_belong_to_it_fails() -> None:
    changed = changed_weight("middle.dense.conv2")
    verdict, of_c = verify(changed, None, (GOLDEN, C_RUNTIME))
    crc = zlib.crc32(
        GOLDEN.run(changed, read_bundle(BUNDLE).vectors.input)
        .layers["middle.dense.conv2"]
        .tobytes()
    )
    assert verdict.status == "FAIL"
    assert verdict.detail.startswith("layer middle.dense.conv2 must have CRC-32 ")
    assert verdict.detail.endswith(f"got {crc:08x}")
    assert of_c.status == "PASS"  # it computes what the golden model computes


def test_absent_machine_is_skipped_with_its_reason() -> None:
    verdicts = verify(BUNDLE, None, (GOLDEN, Absent()))
    assert verdicts[1] == Verdict(
        "absent", "vectors", "numpy", "SKIP", "simulator must be installed"
    )


def test_machine_that_refuses_has_failed() -> None:
    verdict = verify(BUNDLE, None, (GOLDEN, OtherBundle(b"")))[1]
    assert verdict.status == "FAIL"
    assert verdict.detail.startswith("refused, bundle: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[:-1], r"layer head must be int8 \(22, 38, 4\), got int8 \(21, 38, 4\)"),
        (lambda a: a.astype(np.int16), r"layer head must be int8 .*, got int16"),
    ],
)
def test_shape_and_type_count_too(change, message: str) -> None:  # type: ignore[no-untyped-def]
    class Odd(OtherBundle):
        def run(self, bundle: bytes, image: UInt8Array) -> Result:
            result = super().run(bundle, image)
            return Result(result.output, {**result.layers, "head": change(result.layers["head"])})

    verdict = verify(BUNDLE, None, (GOLDEN, Odd(BUNDLE)))[1]
    assert verdict.status == "FAIL"
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.detail)


def test_layers_and_output_count_too() -> None:
    class Short(OtherBundle):
        def run(self, bundle: bytes, image: UInt8Array) -> Result:
            result = super().run(bundle, image)
            return Result(result.output, dict(list(result.layers.items())[:-1]))

    class Bright(OtherBundle):
        def run(self, bundle: bytes, image: UInt8Array) -> Result:
            result = super().run(bundle, image)
            return Result(result.output ^ 1, result.layers)

    short, bright = (
        verify(BUNDLE, None, (GOLDEN, kind(BUNDLE)))[1].detail for kind in (Short, Bright)
    )
    assert short.startswith("layers must be ['head', ")
    assert bright.startswith("output differs at [y 0, x 0, channel 0]: must be ")
    assert bright.endswith("(2331 of 2331 values differ)")


def run_command(*arguments: object):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


def test_command_prints_a_verdict_a_line(tmp_path: Path) -> None:
    (tmp_path / "model.slb").write_bytes(BUNDLE)
    Image.fromarray(random_image(5, 6, 9)).save(tmp_path / "frame.png")
    report = tmp_path / "verdicts.json"
    result = run_command(
        tmp_path / "model.slb", "--image", tmp_path / "frame.png", "--json", report
    )
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines == [str(v) for v in verify(BUNDLE, random_image(5, 6, 9))]
    document = json.loads(report.read_text())
    assert document["bundle"] == "model.slb"
    assert [Verdict(**entry) for entry in document["verdicts"]] == verify(
        BUNDLE, random_image(5, 6, 9)
    )


def test_command_fails_on_a_difference_and_still_reports(tmp_path: Path) -> None:
    (tmp_path / "model.slb").write_bytes(changed_weight("head"))
    result = run_command(tmp_path / "model.slb", "--json", tmp_path / "verdicts.json")
    assert result.exit_code == 1
    assert result.output.startswith("FAIL numpy on vectors = CRCs in the bundle: layer head must")
    document = json.loads((tmp_path / "verdicts.json").read_text())
    assert document["verdicts"][0]["status"] == "FAIL"


@pytest.mark.parametrize(
    ("bundle", "arguments", "message"),
    [
        (None, [], "bundle: file must exist, got"),
        (b"", [], "bundle: size must be at least 128, got 0"),
        (BUNDLE[:-1], [], "bundle: size must be"),
        (BUNDLE, ["--image", "absent.png"], "absent.png"),
        (BUNDLE, ["--image", "model.slb"], "model.slb"),
        (BUNDLE, ["--json", "absent/verdicts.json"], "folder must exist"),
    ],
)
def test_command_refuses_in_one_line(
    tmp_path: Path, bundle: bytes | None, arguments: list[str], message: str
) -> None:
    if bundle is not None:
        (tmp_path / "model.slb").write_bytes(bundle)
    result = subprocess.run(
        [sys.executable, "-m", "hls_export", "verify", "model.slb", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
