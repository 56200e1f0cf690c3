"""Ablations: arithmetic of the table, results on disk, one real run of the smallest size."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks import choices
from benchmarks.ablation import BASE, CASES, CONDITIONS, Job, Settings, summarise
from starlight.files import write_json
from starlight.models.config import DenoiserConfig

SETTINGS = Settings(
    width=4,
    levels=2,
    steps=3,
    batch=1,
    patch=16,
    learning_rate=1e-3,
    data=(),
    evaluation=None,
    limit=1,
    crop=32,
)
NUMBERS = ("width", "levels", "steps", "batch", "patch", "learning_rate", "limit", "crop")
SMALL = ("--quick", "--steps", 2, "--batch", 1, "--width", 4, "--levels", 2)


def result(case: str, seed: int, *psnr: float) -> dict[str, Any]:
    return {
        "case": case,
        "seed": seed,
        "settings": SETTINGS.record(),
        "photographs": {"training": 3, "evaluation": 1},
        "psnr": dict(zip(CONDITIONS, psnr, strict=True)),
        "macs_per_pixel": 1234.0,
        "parameters": 5678,
    }


def run(*arguments: object) -> Result:
    outcome = CliRunner().invoke(choices.main, [str(argument) for argument in arguments])
    if isinstance(outcome.exception, Exception):
        raise outcome.exception
    return outcome


def contents(folder: Path) -> dict[str, int]:
    """Every file below a folder and when it was written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("case", CASES)
def test_a_case_is_the_base_with_one_choice_made_otherwise(case: str) -> None:
    fields = Job(case, 0, SETTINGS, Path()).config
    config = DenoiserConfig.from_json(json.dumps(fields)).model_dump()
    base = DenoiserConfig(width=SETTINGS.width, levels=SETTINGS.levels).model_dump()
    changed = {f"{name}={value}".lower() for name, value in config.items() if base[name] != value}
    assert changed == (set() if case == BASE else {case})


def test_a_row_holds_means_differences_by_seed_and_spread() -> None:
    base, other = summarise(
        [
            result(BASE, 0, 30.0, 32.0),
            result("skip=module", 0, 30.5, 32.25),
            result(BASE, 1, 31.0, 34.0),
            result("skip=module", 1, 31.0, 33.0),
        ]
    )
    assert (base["case"], other["case"]) == (BASE, "skip=module")
    assert base["seeds"] == other["seeds"] == [0, 1]
    assert base["differences"] == [0.0, 0.0]
    assert base["spread"] == 1.5
    assert other["psnr"] == {"sigma_25": 30.75, "iso_6400": 32.625}
    assert other["differences"] == [0.375, -0.5]
    assert other["difference"] == -0.0625
    assert other["spread"] == 0.625


def test_the_docs_get_caption_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "MODEL.md"
    document.write_text("before\n<!-- ablations:begin -->\nold\n<!-- ablations:end -->\nafter\n")
    monkeypatch.setattr(choices, "ROOT", tmp_path)
    monkeypatch.setattr(choices, "DOCUMENT", document)
    out = tmp_path / "out"
    for seed in (0, 1):
        for index, case in enumerate(CASES):
            job = Job(case, seed, SETTINGS, out)
            job.folder.mkdir(parents=True)
            write_json(job.result_file, result(case, seed, 30.0 + index, 32.0 + seed / 2))
    options = SETTINGS.record()
    arguments = [f"--{name.replace('_', '-')}={options[name]}" for name in NUMBERS]
    outcome = run("--out", out, *arguments, "--write-docs")
    assert outcome.exit_code == 0
    assert outcome.stdout.endswith("written: MODEL.md\n")
    before, caption, table, after = re.split(
        r"<!-- ablations:begin -->\n|\n\n|\n<!-- ablations:end -->", document.read_text()
    )
    assert (before, after) == ("before\n", "\nafter\n")
    assert "3 steps of 1 patches 16 x 16" in caption
    assert "scikit-image (3)" in caption
    titles, _, *lines = [
        [cell.strip() for cell in line[1:-1].split("|")] for line in table.split("\n")
    ]
    assert tuple(titles) == choices.TITLES
    assert [line[0] for line in lines] == list(CASES)
    assert lines[0] == [BASE, "30.00", "32.25", "", "", "0.25", "1.2", "5,678"]
    assert lines[1] == [
        "skip=module",
        "31.00",
        "32.25",
        "+0.50",
        "+0.50 +0.50",
        "0.25",
        "1.2",
        "5,678",
    ]


@pytest.mark.parametrize("arguments", [["--quick"], ["--only", "skip=module"]])
def test_the_docs_want_all_cases(arguments: list[str], tmp_path: Path) -> None:
    outcome = run("--write-docs", "--out", tmp_path, *arguments)
    assert outcome.exit_code == 2
    assert "Error: choices: --write-docs must have all cases, got skip=module" in outcome.stderr


def test_a_result_of_other_settings_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    job = Job(BASE, 0, SETTINGS, tmp_path)
    assert job.result() is None
    job.folder.mkdir(parents=True)
    found = result(BASE, 0, 30.0, 32.0)
    write_json(job.result_file, found)
    assert job.result() == found
    write_json(job.result_file, {**found, "settings": {**found["settings"], "steps": 4}})
    with pytest.raises(ValueError, match=r"base, seed 0: steps must be 4 as in .*, got 3; choose"):
        job.result()
    job.result_file.write_text("{")
    with pytest.raises(
        ValueError, match="base, seed 0: result must be intact, got JSONDecodeError"
    ):
        job.result()


def test_folders_are_named_without_their_place(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    record = Settings(**{**SETTINGS.__dict__, "data": (folder,), "evaluation": folder}).record()
    assert record["data"] == ["photos"]
    assert record["evaluation"] == "photos"
    assert str(tmp_path) not in json.dumps(record)


def test_a_folder_without_photographs_is_refused_before_training(tmp_path: Path) -> None:
    outcome = run(*SMALL, "--out", tmp_path / "out", "--data", tmp_path)
    assert outcome.exit_code == 2
    assert "Error: images: folder must hold a file ending in " in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_trains_the_base_and_the_case_and_never_again(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = (*SMALL, "--out", tmp_path / "out", "--json", figures)
    outcome = run(*arguments)
    assert outcome.exit_code == 0
    assert "2 trainings, 0 of them done" in outcome.stdout
    document = json.loads(figures.read_text(encoding="utf-8"))["choices"]
    assert [row["case"] for row in document["rows"]] == [BASE, "skip=module"]
    for row in document["rows"]:
        assert set(row["psnr"]) == set(CONDITIONS)
        assert row["parameters"] > 0
    assert document["settings"]["steps"] == 2
    written = contents(tmp_path / "out")
    assert set(written) == {f"{case}/seed-0/result.json" for case in (BASE, "skip=module")}

    again = run(*arguments)
    assert again.exit_code == 0
    assert "2 trainings, 2 of them done" in again.stdout
    assert contents(tmp_path / "out") == written
    repeated = json.loads(figures.read_text(encoding="utf-8"))["choices"]
    assert repeated["rows"] == document["rows"]
