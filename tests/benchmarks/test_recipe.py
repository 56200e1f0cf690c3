"""A case that is done is read again, if it was measured with the same options."""

import json
from pathlib import Path

import pytest

from benchmarks.recipe import RECIPE, measure

DONE = {"settings": {"mix": "mix.toml", "data": ["photos"], "evaluation": None, "steps": 5}}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / RECIPE).mkdir()
    (tmp_path / RECIPE / "metrics.json").write_text(json.dumps(DONE), encoding="utf-8")
    return tmp_path


def test_a_finished_case_is_not_run_again(out: Path) -> None:
    options = {"mix": Path("mix.toml"), "data": Path("photos"), "evaluation": None, "steps": 5}
    assert measure(RECIPE, out, options) == DONE


def test_a_case_of_other_options_is_refused(out: Path) -> None:
    with pytest.raises(ValueError, match=r"mix must be mix.toml as in .*, got other.toml"):
        measure(RECIPE, out, {"mix": Path("other.toml")})
    with pytest.raises(ValueError, match=r"steps must be 5 as in .*, got 6"):
        measure(RECIPE, out, {"steps": 6})
