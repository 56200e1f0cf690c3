"""Bundles of the past stay readable and keep their bits; bundles of the near future can be read."""

import hashlib
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graph_equality import assert_same_graph
from strategies import random_image

from hls_export import container
from hls_export.bundle import read_bundle
from hls_export.executors.c_runtime import native
from hls_export.layer_table import HeaderRecord
from hls_export.verify import verify
from quant import interpret

FOLDER = Path(__file__).parent / "bundles"
OLD = (FOLDER / "format_1_0.slb").read_bytes()
# What the file was when format 1.0 was current, and what it makes of an image. Not to be renewed:
# a difference here is a bundle in the field that no longer opens or no longer denoises alike.
SHA256 = "764c4a4ecd998b426d58aeb46418e17a20aa60fb9aca913f61b61224f6172f9d"
OUTPUT_CRC32 = 0x4785627C
FORMAT_2 = (FOLDER / "format_2_0.slb").read_bytes()
SHA256_2 = "3898e90cd1d0e567fd31be9cab049f5f965afe28becbc51469b33f5862682092"
OUTPUT_CRC32_2 = 0xDA3BBEDD
FILES = {"1_0": (OLD, SHA256, OUTPUT_CRC32), "2_0": (FORMAT_2, SHA256_2, OUTPUT_CRC32_2)}


def image() -> np.ndarray:
    """uint8 [23, 30, 3] by integers alone."""
    y, x, c = np.ogrid[0:23, 0:30, 0:3]
    return ((x * 37 + y * 61 + c * 101 + (x * y) % 13 * 17) % 256).astype(np.uint8)


@pytest.mark.parametrize("version", FILES)
def test_the_file_is_what_it_was(version: str) -> None:
    data, sha256, _ = FILES[version]
    assert hashlib.sha256(data).hexdigest() == sha256
    assert f"{read_bundle(data).format.replace('.', '_')}" == version


@pytest.mark.parametrize("version", FILES)
def test_its_bits_are_what_they_were(version: str) -> None:
    data, _, output_crc32 = FILES[version]
    output, _ = native().Model(data).run(image())
    assert zlib.crc32(output.tobytes()) == output_crc32
    assert np.array_equal(interpret.run(read_bundle(data).graph(), image()), output)
    assert [str(v.status) for v in verify(data, random_image(0, 9, 14))].count("FAIL") == 0
    assert native().Model(data).self_test() is None


@pytest.mark.parametrize("version", FILES)
def test_the_script_gives_its_graph(version: str, tmp_path: Path) -> None:
    """The address plan and optional sections may change; what the layers compute may not."""
    made = tmp_path / "again.slb"
    script = FOLDER / f"make_format_{version}.py"
    subprocess.run([sys.executable, str(script), str(made)], check=True)
    assert_same_graph(read_bundle(made).graph(), read_bundle(FILES[version][0]).graph())


def test_a_new_writer_writes_old_files_byte_for_byte(tmp_path: Path) -> None:
    """Of format 1, all but the address plan, which later planners may better."""
    made = tmp_path / "again.slb"
    script = FOLDER / "make_format_1_0.py"
    subprocess.run([sys.executable, str(script), str(made)], check=True)
    assert container.read_header(made.read_bytes()).format_major == 1
    assert container.read_header(made.read_bytes()).format_minor == 0
    again, old = (
        {s.kind: s.data for s in container.read_container(data)}
        for data in (made.read_bytes(), OLD)
    )
    assert again.keys() == old.keys()
    for kind in ("CHIP", "STRS", "CHAN", "WGHT", "VECT", "META"):
        assert again[kind] == old[kind], kind


def with_minor(data: bytes, minor: int) -> bytes:
    """The bundle of a later minor version: its header says so, and a new section is there."""
    sections = [(s.kind, s.required, s.data) for s in container.read_container(data)]
    made = container.pack_container([*sections, ("LATE", False, bytes(range(100)))])
    header = replace(HeaderRecord.unpack(made[:64], "header"), format_minor=minor, header_crc32=0)
    head = replace(header, header_crc32=zlib.crc32(header.pack()[:60])).pack()
    body = head + made[64:-64]
    trailer = hashlib.sha256(body).digest() + bytes(28)
    return body + trailer + zlib.crc32(trailer).to_bytes(4, "little")


@pytest.mark.parametrize("minor", [1, 7, 65535])
def test_a_later_minor_version_is_read_by_both(minor: int) -> None:
    later = with_minor(OLD, minor)
    assert container.read_header(later).format_minor == minor
    assert_same_graph(read_bundle(later).graph(), read_bundle(OLD).graph())
    later_output, _ = native().Model(later).run(image())
    assert zlib.crc32(later_output.tobytes()) == OUTPUT_CRC32
