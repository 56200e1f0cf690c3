"""The runtime on bare cores: its self-test on emulated boards, its size, its stack, what it links.

Boards are QEMU's, without an operating system. A missing tool skips its test and names the Debian
package.
"""

import re
import subprocess
import zlib
from pathlib import Path

import native_build
import pytest
from click.testing import CliRunner
from runtime_library import INCLUDES, RUNTIME, SOURCES, statuses
from strategies import TINY, random_graph

from benchmarks import firmware
from hls_export.bundle import pack_bundle
from hls_export.npu import load_chip

TARGET = Path(__file__).parent / "target"
BUNDLE = pack_bundle(random_graph(2, TINY), load_chip("reference"))
BOARDS = {"mps2-an385": "cortex-m3", "mps2-an386": "cortex-m4", "mps2-an500": "cortex-m7"}
PACKAGES = {
    firmware.ARM: "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    firmware.RISCV: "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
}
# What the frames of main and reset add to the library's own chain.
PROGRAM_STACK = 512


def firmware_image(bundle: bytes, cpu: str, folder: Path) -> Path:
    path = folder / f"{zlib.crc32(bundle):08x}.slb"  # part of the build's key
    path.write_bytes(bundle)
    return native_build.build_program(
        [TARGET / "startup.c", RUNTIME / "bundle.S", RUNTIME / "main.c", *SOURCES],
        INCLUDES,
        [
            *(f"-mcpu={cpu}", "-mthumb", "-std=gnu99", "-Wall", "-Wextra", "-Wconversion"),
            *("-Werror", "--specs=nano.specs", "-nostartfiles", "-T", str(TARGET / "mps2.ld")),
            *("-Wl,--no-warn-execstack", f'-DSL_BUNDLE="{path}"', "-DSL_ARENA_BYTES=100000"),
        ],
        compiler="arm-none-eabi-gcc",
    )


def run_on(board: str, image: Path) -> tuple[int, int]:
    """main's value, and the bytes of stack that were touched."""
    result = subprocess.run(
        [
            *("qemu-system-arm", "-M", board, "-display", "none", "-monitor", "none"),
            *("-serial", "none", "-semihosting-config", "enable=on,target=native"),
            *("-kernel", str(image)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return result.returncode, int(result.stdout + result.stderr)


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_reproduces_the_vectors_within_the_stated_stack(board: str, tmp_path: Path) -> None:
    native_build.require(PACKAGES[firmware.ARM], "arm-none-eabi-gcc")
    native_build.require("qemu-system-arm", "qemu-system-arm")
    cpu = BOARDS[board]
    status, touched = run_on(board, firmware_image(BUNDLE, cpu, tmp_path))
    assert statuses()[status] == "SL_OK"
    bound = firmware.measure(firmware.CORES[cpu], "-O2").stack
    assert touched <= bound + PROGRAM_STACK


def test_a_board_names_the_damage(tmp_path: Path) -> None:
    native_build.require(PACKAGES[firmware.ARM], "arm-none-eabi-gcc")
    native_build.require("qemu-system-arm", "qemu-system-arm")
    damaged = bytearray(BUNDLE)
    damaged[-1] ^= 1
    status, _ = run_on("mps2-an385", firmware_image(bytes(damaged), "cortex-m3", tmp_path))
    assert statuses()[status] == "SL_BAD_TRAILER"


def stated_stack() -> int:
    stated = re.search(
        r"^#define SL_STACK_BYTES (\d+)u$",
        (RUNTIME / "starlight_runtime.h").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert stated is not None
    return int(stated[1])


@pytest.mark.parametrize("name", firmware.CORES)
def test_footprint_of_every_core(name: str) -> None:
    """It compiles without a warning, keeps no data, and its stack is what the header states."""
    core = firmware.CORES[name]
    native_build.require(PACKAGES[core.prefix], f"{core.prefix}gcc")
    found = firmware.measure(core, "-Os")
    assert (found.data, found.bss) == (0, 0)
    assert 0 < found.stack <= stated_stack()


@pytest.mark.parametrize("optimisation", ["-O0", "-O1", "-O2", "-O3"])
def test_stack_of_this_machine(optimisation: str, tmp_path: Path) -> None:
    objects = firmware.compile_objects("", [optimisation], tmp_path)
    chains = firmware.stack_bytes(objects)
    assert set(chains) == set(firmware.ENTRIES)
    assert 0 < max(chains.values()) <= stated_stack()


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("int sl_open(int n) { return n ? sl_open(n - 1) + n * sl_open(n - 2) : 0; }", "recur"),
        (
            "int sl_open(int n) { volatile char c[n]; c[0] = 1; return c[0]; }",
            "frame of sl_open must have a bound",
        ),
        ('int puts(const char *); int sl_open(int n) { return n + puts(""); }', "got puts"),
    ],
)
def test_a_stack_without_a_bound_is_refused(code: str, rule: str, tmp_path: Path) -> None:
    source = tmp_path / "code.c"
    source.write_text(code)
    target = tmp_path / "code.o"
    subprocess.run(
        ["gcc", "-O1", "-fcallgraph-info=su", "-c", str(source), "-o", str(target)], check=True
    )
    with pytest.raises(ValueError, match=rule):
        firmware.stack_bytes([target])


def test_no_floating_point(tmp_path: Path) -> None:
    """A core without a floating-point unit would call the compiler's soft-float functions."""
    native_build.require(PACKAGES[firmware.ARM], "arm-none-eabi-gcc")
    core = firmware.CORES["cortex-m0plus"]
    objects = firmware.compile_objects(core.prefix, [*core.flags, "-O2"], tmp_path)
    listed = subprocess.run(
        [f"{core.prefix}nm", "-u", *map(str, objects)], capture_output=True, text=True, check=True
    ).stdout
    called = {name for name in re.findall(r"U (\w+)", listed) if not name.startswith("sl_")}
    whole = re.compile(
        r"__aeabi_(u?i|u?l)div(mod)?|__aeabi_l(mul|lsl|lsr|asr)|__gnu_thumb1_case_\w+"
    )
    assert {name for name in called if not whole.fullmatch(name)} <= set(firmware.LIBRARY)


def test_the_documents_table_has_every_core() -> None:
    text = firmware.DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) +\| +(-O\w) \|", text, re.MULTILINE)
    assert rows == [(core, level) for core in firmware.CORES for level in firmware.OPTIMISATIONS]


def test_the_command_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = CliRunner().invoke(firmware.main, ["--only", "cortex-m3"])
    assert result.exit_code != 0
    assert "apt install gcc-arm-none-eabi" in result.output
