"""The reference chip's driver and register map against an engine that knows its registers alone."""

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import native_build
import pytest
from click.testing import CliRunner
from runtime_library import INCLUDES, SOURCES, statuses
from strategies import STYLES, TINY, Style, random_graph

from hls_export import register_map
from hls_export.bundle import pack_bundle
from hls_export.npu import load_chip
from hls_export.register_map import REGISTERS, RW, Field, Register, check_registers
from quant.contract import Op

NPU = native_build.ROOT / "csrc" / "npu"
FOLDER = Path(__file__).parent
EVERY_OP = sum(1 << op for op in Op)


@dataclass(frozen=True)
class Outcome:
    tested: str
    ran: str
    equal: bool
    done: int
    declined: int
    started: int
    misuse: int
    written: frozenset[int]


@pytest.fixture(scope="module")
def program() -> Path:
    return native_build.build_program(
        [FOLDER / "npu_trial.c", FOLDER / "npu_model.c", NPU / "npu_driver.c", *SOURCES],
        [*INCLUDES, NPU],
        ["-std=gnu99", "-Wall", "-Wextra", "-Wconversion", "-Werror", *native_build.SANITIZERS],
    )


def trial(
    program: Path,
    bundle: Path,
    *,
    latency: int = 3,
    patience: int = 100,
    ops: int = EVERY_OP,
    hangs_at: int = 0,
) -> Outcome:
    numbers = (latency, patience, ops, hangs_at)
    result = subprocess.run(
        [str(program), str(bundle), *map(str, numbers)], capture_output=True, text=True, check=True
    )
    head, written = result.stdout.split("\n")
    tested, ran, equal, *counts = map(int, head.split())
    return Outcome(
        statuses()[tested],
        statuses()[ran],
        bool(equal),
        *counts,
        frozenset(map(int, written.split())),
    )


def bundle_of(folder: Path, style: Style) -> tuple[Path, list[Op]]:
    graph = random_graph(4, TINY, style)
    path = folder / "model.slb"
    path.write_bytes(pack_bundle(graph, load_chip("reference")))
    return path, [layer.op for layer in graph.layers]


@pytest.mark.parametrize("style", STYLES)
def test_every_layer_through_the_registers(program: Path, tmp_path: Path, style: Style) -> None:
    path, ops = bundle_of(tmp_path, style)
    outcome = trial(program, path)
    assert (outcome.tested, outcome.ran, outcome.equal) == ("SL_OK", "SL_OK", True)
    # Twice over the network; the traced tail of the self-test is the runtime's own.
    assert (outcome.done, outcome.declined) == (2 * len(ops) - 1, 0)
    assert outcome.misuse == 0
    writable = {register.offset for register in REGISTERS if register.access != register_map.RO}
    assert outcome.written == writable  # no register of the map is idle


def test_what_the_engine_cannot_do_the_runtime_does(program: Path, tmp_path: Path) -> None:
    path, ops = bundle_of(tmp_path, "edges")
    outcome = trial(program, path, ops=1 << Op.CONV3X3 | 1 << Op.TAIL)
    assert (outcome.tested, outcome.ran, outcome.equal) == ("SL_OK", "SL_OK", True)
    others = sum(op not in (Op.CONV3X3, Op.TAIL) for op in ops)
    assert outcome.declined == 2 * others
    assert outcome.misuse == 0


def test_an_engine_that_hangs_is_left_alone(program: Path, tmp_path: Path) -> None:
    path, ops = bundle_of(tmp_path, "natural")
    outcome = trial(program, path, hangs_at=5)
    assert (outcome.tested, outcome.ran, outcome.equal) == ("SL_OK", "SL_OK", True)
    assert (outcome.done, outcome.started) == (4, 5)
    assert outcome.declined == 2 * len(ops) - 1 - 4
    assert outcome.misuse == 0


def test_patience_is_the_number_of_reads(program: Path, tmp_path: Path) -> None:
    path, _ = bundle_of(tmp_path, "natural")
    assert trial(program, path, latency=9, patience=10).declined == 0
    assert trial(program, path, latency=10, patience=10).done == 0


@pytest.mark.parametrize("compiler", ["gcc", "g++", "clang", "arm-none-eabi-gcc"])
def test_driver_compiles_without_a_warning(compiler: str) -> None:
    language = ("-x", "c++", *native_build.CXX17) if compiler == "g++" else native_build.C99
    try:
        native_build.build_program(
            [NPU / "npu_driver.c"], [*INCLUDES, NPU], [*language, "-c"], compiler=compiler
        )
    except RuntimeError as error:
        if "must be on the PATH" not in str(error):
            raise
        pytest.skip(f"needs {compiler}")


def test_generated_files_are_current() -> None:
    assert CliRunner().invoke(register_map.main, ["--check"]).exit_code == 0


def test_generator_names_the_file_that_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = tmp_path / "npu_registers.h"
    monkeypatch.setattr(register_map, "HEADER", header)
    missing = CliRunner().invoke(register_map.main, ["--check"])
    assert missing.exit_code == 1
    assert "must match hls_export/register_map.py" in missing.output
    header.write_text(register_map.header_text().replace("0x00C", "0x010"))
    assert CliRunner().invoke(register_map.main, ["--check"]).exit_code == 1


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        (replace(REGISTERS[0], offset=2), "multiple of 4"),
        (replace(REGISTERS[0], offset=4), "each offset must occur once"),
        (replace(REGISTERS[0], name="VERSION"), "each name must occur once"),
        (
            Register("X", 0xF00, RW, "", (Field("A", 0, 4, ""), Field("B", 3, 1, ""))),
            "bits of its own",
        ),
        (Register("X", 0xF00, RW, "", (Field("A", 30, 3, ""),)), "bits of its own"),
    ],
)
def test_a_map_that_contradicts_itself_is_refused(changed: Register, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        check_registers((changed, *REGISTERS[1:]))
