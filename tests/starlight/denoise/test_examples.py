"""The examples of docs/examples run."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from strategies import random_image

from starlight.denoise.images import read_image, write_image

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"


def test_the_script_denoises_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_image(tmp_path / "in" / f"{name}.png", random_image(0, 20, 30))
    example = runpy.run_path(str(EXAMPLES / "denoise_folder.py"))
    example["main"](tmp_path / "in", tmp_path / "out")
    assert capsys.readouterr().out.split() == ["a.png", "b.png"]
    assert (read_image(tmp_path / "out/a.png") != read_image(tmp_path / "in/a.png")).any()


def test_every_cell_of_the_notebook_runs() -> None:
    notebook = json.loads((EXAMPLES / "denoiser.ipynb").read_text(encoding="utf-8"))
    names: dict[str, np.ndarray] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "denoiser.ipynb", "exec"), names)
    assert np.abs(names["tiled"].astype(int) - names["restored"]).max() <= 1
    assert (names["half"] != names["noisy"]).any()
