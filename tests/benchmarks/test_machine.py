"""The machine's description: JSON types, and a limit that is a limit."""

import json
import shutil
from dataclasses import asdict

import pytest

from benchmarks import ROOT
from benchmarks.machine import core_count, describe, fma_limit
from starlight import __version__


def test_a_description_survives_json_and_names_what_it_must() -> None:
    machine = describe()
    document = json.loads(json.dumps(asdict(machine), allow_nan=False))
    assert document["cpu"]
    assert document["cores"] == core_count() >= 1
    assert document["packages"]["starlight"] == __version__
    assert document["cpu"] in str(machine)
    assert (document["commit"] is not None) == ((ROOT / ".git").exists() and has("git"))


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, cc")
def test_the_limit_is_measured_where_there_is_a_compiler() -> None:
    limit = fma_limit()
    assert limit is not None
    assert limit > 0


def test_without_a_compiler_there_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert fma_limit() is None


def has(program: str) -> bool:
    return shutil.which(program) is not None
