"""The C headers of the contract against the numpy oracle, as C99, as C++17 and under UBSan."""

import subprocess
from pathlib import Path

import native_build
import numpy as np
import pytest
from click.testing import CliRunner

from quant import contract, contract_header, intmath
from quant.contract import Op
from quant.intmath import Int64Array

DRIVER = Path(__file__).parent / "contract_driver.c"
INT32 = np.iinfo(np.int32)
SHIFTS = np.arange(contract.SHIFT_MIN, contract.SHIFT_MAX + 1)
BUILDS = {
    "c99": ("gcc", native_build.C99),
    "c99-O3": ("gcc", (*native_build.C99, "-O3")),
    "c++17": ("g++", native_build.CXX17),
    "ubsan": ("gcc", (*native_build.C99, *native_build.SANITIZERS)),
}


@pytest.fixture(scope="module", params=list(BUILDS))
def driver(request: pytest.FixtureRequest) -> Path:
    compiler, flags = BUILDS[request.param]
    return native_build.build_program([DRIVER], [native_build.CONTRACT], flags, compiler=compiler)


def call(
    driver: Path,
    function: str,
    value: object,
    shift: object = 0,
    operand: object = 0,
    multiplier: object = 0,
    join_multiplier: object = 0,
) -> Int64Array:
    """The C function over the broadcast arguments, int64 of their shape."""
    arguments = (value, operand, shift, multiplier, join_multiplier)
    arrays = np.broadcast_arrays(*(np.asarray(a, np.int64) for a in arguments))
    result = subprocess.run(
        [driver, function],
        input=np.stack(arrays, axis=-1).tobytes(),
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    return np.frombuffer(result.stdout, np.int64).reshape(arrays[0].shape)


def accumulators() -> Int64Array:
    """Random int32, every power of two and its neighbours, both ends, all small values."""
    rng = np.random.default_rng(20)
    powers = 2 ** np.arange(31, dtype=np.int64)
    edges = np.concatenate([sign * powers + d for sign in (-1, 1) for d in (-1, 0, 1)])
    uniform = rng.integers(INT32.min, INT32.max, 20_000, endpoint=True)
    spread = rng.integers(-(2**15), 2**15, 10_000) * 2 ** rng.integers(0, 16, 10_000)
    ends = np.array([INT32.min, INT32.min + 1, INT32.max - 1, INT32.max])
    return np.concatenate([np.arange(-512, 513), edges, ends, uniform, spread])[:, None]


def test_requantisation_over_int32_and_all_shifts(driver: Path) -> None:
    acc = accumulators()
    rounded = intmath.rounded_shift(acc, SHIFTS)
    assert np.array_equal(call(driver, "rounded_shift", acc, SHIFTS), rounded)
    assert np.array_equal(call(driver, "requantise", acc, SHIFTS), intmath.requantise(acc, SHIFTS))
    relu = intmath.requantise(acc, SHIFTS, relu=True)
    assert np.array_equal(call(driver, "requantise_relu", acc, SHIFTS), relu)


def test_every_output_and_every_tie_of_each_shift(driver: Path) -> None:
    """Each half step within and around int8, with both its neighbours, at every shift."""
    half_steps = np.arange(2 * -130, 2 * 130 + 1)[:, None, None]
    acc = half_steps * 2 ** (SHIFTS - 1) + np.array([-1, 0, 1])[None, :, None]
    acc = np.clip(acc, INT32.min, INT32.max)
    expected = intmath.requantise(acc, SHIFTS)
    assert set(expected.ravel().tolist()) == set(range(-128, 128))
    assert np.array_equal(call(driver, "requantise", acc, SHIFTS), expected)


def test_tail_over_every_pixel_and_residual(driver: Path) -> None:
    pixel = np.arange(256)[:, None, None]
    residual = np.arange(-260, 261)[None, :, None]
    shifts = np.array([1, 8, 13, 22])
    acc = residual * 2**shifts - 2 ** (shifts - 1)  # the least accumulator of each residual
    expected = intmath.tail_pixels(pixel, acc, shifts)
    assert np.array_equal(call(driver, "tail_pixel", acc, shifts, pixel), expected)
    acc = accumulators()
    expected = intmath.tail_pixels(129, acc, SHIFTS)
    assert np.array_equal(call(driver, "tail_pixel", acc, SHIFTS, 129), expected)


def test_join_over_int8_and_all_shifts(driver: Path) -> None:
    q = np.arange(-128, 128)[:, None, None]
    shifts = np.arange(contract.JOIN_SHIFT_MIN, contract.JOIN_SHIFT_MAX + 1)[:, None]
    room = contract.ACCUMULATOR_MAX - 128 * 2**contract.JOIN_SHIFT_MAX
    acc = np.array([-room, -1, 0, 1, 12345, room])
    expected = intmath.join(acc, q, shifts)
    assert np.array_equal(call(driver, "join", acc, shifts, q), expected)
    assert np.array_equal(call(driver, "multiply_2k", q, shifts), q * 2**shifts)


def test_join_of_16_bits(driver: Path) -> None:
    q = np.array([-(2**15), -(2**15) + 1, -129, -1, 0, 1, 128, 2**15 - 1])[:, None]
    shifts = np.arange(16)  # a larger one leaves no room for the largest q
    acc = np.array([[-(2**30)], [0], [2**30]])[:, :, None]
    assert np.array_equal(
        call(driver, "join", acc, shifts, q), intmath.join(acc, q, shifts, bits=16)
    )


def test_product_over_its_ranges(driver: Path) -> None:
    """All shifts, both ends of everything, ties and their neighbours, and the middle at random."""
    rng = np.random.default_rng(22)
    n = np.arange(contract.MULTIPLIER_SHIFT_MIN, contract.MULTIPLIER_SHIFT_MAX + 1)
    acc = accumulators()
    top = contract.MULTIPLIER_MAX
    for m, r in ((0, 0), (0, top), (1, 1), (top, 0), (top, top), rng.integers(0, top, (2,))):
        q = rng.choice([-(2**15), -128, -1, 0, 1, 127, 2**15 - 1], acc.shape)
        expected = intmath.rounded_product(acc, m, n, q, r)
        assert np.array_equal(call(driver, "rounded_product", acc, n, q, m, r), expected)
    wide = rng.integers(0, top + 1, (4000, 1))
    acc, q = (
        rng.integers(INT32.min, INT32.max, wide.shape),
        rng.integers(-(2**15), 2**15, wide.shape),
    )
    expected = intmath.rounded_product(acc, wide, n, q, wide[::-1])
    assert np.array_equal(call(driver, "rounded_product", acc, n, q, wide, wide[::-1]), expected)
    half = np.arange(-70_000, 70_001, 7)[:, None]  # odd multiples of half a step are ties
    acc, n = (
        half * 2 ** (np.arange(1, 15) - 1) + np.array([-1, 0, 1])[:, None, None],
        np.arange(1, 15),
    )
    expected = intmath.rounded_product(acc, 1, n)
    assert np.array_equal(call(driver, "rounded_product", acc, n, 0, 1), expected)
    for low, high in ((-128, 127), (0, 127), (-(2**15), 2**15 - 1), (0, 2**15 - 1)):
        clipped = np.clip(expected, low, high)
        assert np.array_equal(call(driver, "clamp64", expected, high, low), clipped)


def test_dyadic_is_multiplier_one(driver: Path) -> None:
    acc = accumulators()
    product = call(driver, "rounded_product", acc, SHIFTS, 0, 1)
    assert np.array_equal(product, call(driver, "rounded_shift", acc, SHIFTS))


def test_tail_with_multipliers(driver: Path) -> None:
    pixel, n = np.arange(0, 256, 15)[:, None, None], np.array([1, 7, 19, 20, 39, 40])
    for m in (0, 1, 524_289, contract.MULTIPLIER_MAX):
        acc = accumulators()[::13]
        expected = intmath.multiplier_tail_pixels(pixel, acc, m, n)
        assert np.array_equal(call(driver, "multiplier_tail_pixel", acc, n, pixel, m), expected)


def test_floor_shifts(driver: Path) -> None:
    acc, shifts = accumulators(), np.arange(32)
    expected = intmath.floor_shift(acc, shifts)
    assert np.array_equal(call(driver, "floor_shift32", acc, shifts), expected)
    rng = np.random.default_rng(21)
    wide = rng.integers(-(2**63), 2**63 - 1, (5000, 1), endpoint=True)
    wide = np.concatenate([wide, [[-(2**63)], [2**63 - 1], [-1], [0]]])
    shifts = np.arange(63)
    expected = intmath.floor_shift(wide, shifts)
    assert np.array_equal(call(driver, "floor_shift64", wide, shifts), expected)
    sign = np.where(wide < 0, -1, 0)  # a shift of 63 leaves the sign alone
    assert np.array_equal(call(driver, "floor_shift64", wide, 63), sign)


def test_saturations_and_pixels(driver: Path) -> None:
    values = accumulators().ravel()
    assert np.array_equal(call(driver, "saturate_i8", values), np.clip(values, -128, 127))
    assert np.array_equal(call(driver, "saturate_relu_i8", values), np.clip(values, 0, 127))
    assert np.array_equal(call(driver, "saturate_u8", values), np.clip(values, 0, 255))
    pixels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(call(driver, "quantise_pixel", pixels), intmath.quantise_image(pixels))


def test_generated_header_is_current() -> None:
    assert contract_header.HEADER.read_text(encoding="utf-8") == contract_header.header_text()
    assert CliRunner().invoke(contract_header.main, ["--check"]).exit_code == 0


def test_generator_writes_and_checks(tmp_path: Path) -> None:
    target = tmp_path / "constants.h"
    runner = CliRunner()
    missing = runner.invoke(contract_header.main, ["--check", "--output", str(target)])
    assert missing.exit_code == 1
    assert "must match quant/contract.py" in missing.output
    assert runner.invoke(contract_header.main, ["--output", str(target)]).exit_code == 0
    assert target.read_bytes() == contract_header.HEADER.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    target.write_text(target.read_text().replace("SL_SHIFT_MAX 24", "SL_SHIFT_MAX 23"))
    assert runner.invoke(contract_header.main, ["--check", "--output", str(target)]).exit_code == 1
    nowhere = runner.invoke(contract_header.main, ["--output", str(tmp_path / "none" / "x.h")])
    assert nowhere.exit_code == 2
    assert "folder must exist" in nowhere.output


@pytest.mark.parametrize("language", ["c99", "c++17"])
def test_compiled_constants_have_the_values_of_the_contract(language: str, tmp_path: Path) -> None:
    integers = {
        f"SL_{name}": value
        for name, value in vars(contract).items()
        if name.isupper() and isinstance(value, int)
    } | {f"SL_OP_{op.name}": op.value for op in Op}
    strings = {"SL_ARITHMETIC": contract.ARITHMETIC, "SL_REQUANTISATION": contract.REQUANTISATION}
    lines = ['#include "contract_constants.h"', "#include <stdio.h>", "int main(void) {"]
    lines += [f'    printf("{name} %ld\\n", (long){name});' for name in integers]
    lines += [f'    printf("{name} %s\\n", {name});' for name in strings]
    source = tmp_path / "print.c"
    source.write_text("\n".join([*lines, "    return 0;", "}", ""]))
    compiler, flags = BUILDS[language]
    program = native_build.build_program(
        [source], [native_build.CONTRACT], flags, compiler=compiler
    )
    output = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    expected = [f"{name} {value}" for name, value in (integers | strings).items()]
    assert output.splitlines() == expected


def test_contract_needs_no_library(tmp_path: Path) -> None:
    """Freestanding, the object of an includer refers to nothing outside itself."""
    source = tmp_path / "firmware.c"
    source.write_text(
        '#include "intmath.h"\n'
        "int8_t requantise(int32_t acc, uint8_t shift);\n"
        "int8_t requantise(int32_t acc, uint8_t shift) { return sl_requantise(acc, shift); }\n"
    )
    flags = (*native_build.C99, "-ffreestanding", "-c")
    built = native_build.build_program([source], [native_build.CONTRACT], flags)
    undefined = subprocess.run(["nm", "-u", built], capture_output=True, text=True, check=True)
    assert undefined.stdout.strip() == ""
