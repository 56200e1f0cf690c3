"""suite.toml: what is refused, in one line that names the setting; the suites that ship."""

from pathlib import Path
from typing import Any

import pytest

from starlight.config_file import expanded_path, parse_settings
from starlight.evaluation.suite_config import Suite, load_suite

SUITES = sorted((Path(__file__).resolve().parents[3] / "docs/suites").glob("*.toml"))
CLEAN = {"name": "a", "clean": "photos"}
REAL = {"name": "r", "pairs": "photos", "noisy": "*_real.JPG", "truth": "*_mean.JPG"}
NOISE = {"data": "a", "noise": ["sigma_25"]}
EDGE = {"weights": "edge"}


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.name)
def test_suites_that_ship_are_valid(path: Path) -> None:
    suite = load_suite(path)
    others = {entry.kind for entry in suite.peer} | {str(entry.bundle) for entry in suite.model}
    assert others & {"ffdnet", "edge-gaussian"}  # what a row is compared with


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"data": []}, "suite: data must be valid"),
        ({"data": [CLEAN | {"pairs": "x"}]}, "suite: data.0 must have either pairs or clean"),
        ({"data": [CLEAN | {"noisy": "*"}]}, "data.0 noisy must stand beside pairs"),
        ({"data": [REAL | {"truth": "x"}]}, r"data.0 truth must have one \*, got x"),
        ({"data": [CLEAN, CLEAN]}, "data: names must differ, got a, a"),
        ({"data": [CLEAN | {"limit": 0}]}, "data.0.limit must be valid"),
        ({"data": [CLEAN | {"crops": 2}]}, "data.0.crops must be a known setting, got 2"),
        ({"protocol": [NOISE | {"data": "b"}]}, "protocol.0: data must be one of a, got b"),
        ({"protocol": [{"data": "a"}]}, "protocol.0: noise must name a condition, got none"),
        ({"protocol": [NOISE | {"noise": ["loud"]}]}, "protocol.0 noise: condition must read"),
        ({"protocol": [NOISE | {"result": "float"}]}, "result must be u8 with input u8_clipped"),
        ({"protocol": [NOISE | {"seed": "1"}]}, "protocol.0.seed must be valid"),
        ({"data": [REAL], "protocol": [{"data": "r", "noise": ["iso_6400"]}]}, "left out for real"),
        ({"model": []}, "suite: model or peer must be given, got none"),
        ({"model": [{}]}, "model.0 must have either weights or bundle"),
        ({"model": [EDGE | {"executor": "c"}]}, "executor must stand beside bundle"),
        ({"model": [{"bundle": "x", "backend": "fused"}]}, "backend must stand beside weights"),
        ({"peer": [{"kind": "ffdnet"}]}, "peer.0 weights must be given for ffdnet"),
        ({"peer": [{"kind": "nlm", "weights": "x"}]}, "peer.0 weights must be given for ffdnet"),
        ({"peer": [{"kind": "nlm", "sigma": 0.0}]}, "peer.0 sigma must be > 0, got 0"),
        ({"peer": [{"kind": "nlm", "grid": [5.0, 2.0]}]}, "peer.0 grid must be > 0 and ascending"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(changed: dict[str, Any], rule: str) -> None:
    fields = {"data": [CLEAN], "protocol": [NOISE], "model": [EDGE]}
    parse_settings(Suite, fields, "suite")
    with pytest.raises(ValueError, match=rule) as error:
        parse_settings(Suite, fields | changed, "suite")
    assert "\n" not in str(error.value)


def test_paths_may_name_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARLIGHT_TEST_FOLDER", "/data")
    assert expanded_path("$STARLIGHT_TEST_FOLDER/x") == "/data/x"
    monkeypatch.delenv("STARLIGHT_TEST_FOLDER")
    with pytest.raises(ValueError, match="variable STARLIGHT_TEST_FOLDER must be set, got none"):
        expanded_path("${STARLIGHT_TEST_FOLDER}/x")
