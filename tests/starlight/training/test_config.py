"""train.toml: what it means, and one line for each thing that is wrong."""

from pathlib import Path

import pytest

from starlight.config_file import tomllib
from starlight.models import PRESETS
from starlight.training.config import GrowthPolicy, Training, load_config, parse_config

LEAST = {"training": {"threshold": 0.02}}

RECIPES = sorted((Path(__file__).resolve().parents[3] / "docs/recipes").glob("*.toml"))


def test_defaults_are_a_preset_on_own_photographs() -> None:
    config = parse_config(LEAST)
    assert config.rungs == (PRESETS["edge"],)
    assert [section.clean for section in config.data] == ["scikit-image"]
    assert config.training.steps is None


def test_the_documents_example_is_valid_and_its_defaults_are_the_codes() -> None:
    document = (Path(__file__).parents[3] / "docs" / "TRAINING.md").read_text(encoding="utf-8")
    example = document.split("```toml\n")[1].split("```")[0]
    config = parse_config(tomllib.loads(example))
    assert [(rung.width, rung.levels) for rung in config.rungs] == [(8, 3), (12, 3), (16, 4)]
    assert [section.pairs for section in config.data] == ["pairs/captured", "pairs/generated", None]
    training, growth = Training(), GrowthPolicy()
    for name in ("learning_rate", "ema"):
        assert f"| {name} | {getattr(training, name):g} |" in document
    assert f"| batch, patch | {training.batch}, {training.patch} |" in document
    for name in ("check_every", "check_batches", "gain", "patience", "drops"):
        assert f"`{name}` {getattr(growth, name):g}" in document


def test_rungs_change_what_they_name_and_keep_the_rest() -> None:
    config = parse_config(
        LEAST
        | {
            "network": {"preset": "tiny", "skip": "literal"},
            "growth": {"ladder": [{"width": 12}, {"levels": 3, "growth": "full"}]},
        }
    )
    first, second, third = config.rungs
    assert (first.width, first.levels, first.skip) == (8, 2, "literal")
    assert second == first.model_copy(update={"width": 12})
    assert third == second.model_copy(update={"levels": 3, "growth": "full"})


def test_noise_settings_reach_the_sampler() -> None:
    section = {"clean": "photos", "gaussian_fraction": 0.25, "sigma_max": 30, "curve": "gamma22"}
    noise = parse_config(LEAST | {"data": [section]}).data[0].noise()
    assert (noise.gaussian_fraction, noise.sigma_max, noise.curve) == (0.25, 30.0, "gamma22")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "training must be given"),
        ({"training": {}}, "threshold must be given with schedule plateau"),
        ({"training": {"threshold": 0}}, "training.threshold must be valid"),
        ({"training": {"threshold": float("inf")}}, "must be valid .*finite number"),
        ({"training": {"threshold": 0.1, "step": 3}}, "training.step must be a known setting"),
        ({"training": {"schedule": "cosine"}}, "steps or minutes must be given"),
        ({"training": {"threshold": 1, "loss": "log"}}, "loss log must have schedule cosine"),
        ({"training": {"threshold": 0.1, "patch": 40}}, "patch must be a multiple of 16, got 40"),
        (LEAST | {"network": {"preset": "huge"}}, "preset must be one of"),
        (LEAST | {"network": {"width": 3}}, "width must be even with growth 'half', got 3"),
        (LEAST | {"network": {"levels": 2}}, "network: width must be given"),
        (LEAST | {"network": {"width": 8, "skip": "none"}}, "network: skip must be valid"),
        (LEAST | {"growth": {"ladder": [{"width": 8}]}}, "ladder.0: growth: widths must not"),
        (LEAST | {"growth": {"ladder": [{}]}}, "ladder.0: growth: config must differ"),
        (LEAST | {"growth": {"ladder": [{"preset": "base"}]}}, "preset must stand in network"),
        (LEAST | {"data": []}, "data must be valid"),
        (LEAST | {"data": [{}]}, "data.0 must have either pairs or clean"),
        (LEAST | {"data": [{"pairs": "a", "clean": "b"}]}, "either pairs or clean"),
        (LEAST | {"data": [{"pairs": "a", "sigma_max": 3}]}, "sigma_max must stand beside clean"),
        (LEAST | {"data": [{"pairs": "a", "zoom_max": 2}]}, "zoom_max must stand beside clean"),
        (LEAST | {"data": [{"clean": "a", "only": "captured"}]}, "only must stand beside pairs"),
        (LEAST | {"data": [{"clean": "a", "weight": 0}]}, "data.0.weight must be valid"),
        (LEAST | {"backend": "fast"}, "backend must be valid"),
        (
            {
                "training": {"schedule": "cosine", "steps": 9},
                "growth": {"ladder": [{"width": 32}]},
            },
            "ladder: must be empty with schedule cosine",
        ),
    ],
)
def test_what_is_wrong_is_one_line(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_config(fields)
    assert len(str(caught.value).splitlines()) == 1


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="file must exist, got"):
        load_config(tmp_path / "none.toml")
    for data in (b"threshold = ", b"\xff\xfe"):
        (tmp_path / "bad.toml").write_bytes(data)
        with pytest.raises(ValueError, match=r"bad\.toml: file must be TOML"):
            load_config(tmp_path / "bad.toml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_that_ship_are_valid(path: Path) -> None:
    config = load_config(path)
    assert config.training.schedule == "cosine"
    assert config.rungs == (PRESETS["tiny" if path.stem.startswith("tiny") else "edge"],)
    assert config.weights in (
        None,
        *(f"runs/{recipe.stem}/weights.safetensors" for recipe in RECIPES),
    )
