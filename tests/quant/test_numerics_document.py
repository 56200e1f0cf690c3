"""docs/NUMERICS.md: its examples run, and its table names the functions that the header has."""

import doctest
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "NUMERICS.md"


def test_examples_run() -> None:
    result = doctest.testfile(str(DOCUMENT), module_relative=False, encoding="utf-8")
    assert result.attempted > 20
    assert result.failed == 0


def test_every_c_function_of_the_table_exists() -> None:
    named = set(re.findall(r"`(sl_\w+)`", DOCUMENT.read_text(encoding="utf-8")))
    header = (ROOT / "csrc" / "contract" / "intmath.h").read_text(encoding="utf-8")
    defined = set(re.findall(r"^SL_INLINE \w+ (sl_\w+)\(", header, re.MULTILINE))
    internal = {"sl_power_of_two", "sl_clamp", "sl_clamp64"}
    assert named == defined - internal
