"""The config: presets, JSON both ways, nonsense refused."""

import itertools

import pytest
from pydantic import ValidationError

from starlight.models.config import LOWERABLE, PRESETS, DenoiserConfig, preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    config = preset(name)
    assert DenoiserConfig.from_json(config.to_json()) == config
    assert config.not_lowerable == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0}, "width"),
        ({"width": -8}, "width"),
        ({"width": 16.5}, "width"),
        ({"width": "16"}, "width"),
        ({"width": 15}, "even"),
        ({"width": 16, "levels": 0}, "levels"),
        ({"width": 16, "levels": 7}, "levels"),
        ({"width": 16, "skip": "none"}, "skip"),
        ({"width": 16, "upsampling": "bilinear"}, "upsampling"),
        ({"width": 16, "levels": 1, "skip": "literal"}, "at least 2"),
        ({"width": 16, "residual": "literal"}, "growth"),
        ({"width": 16, "depth": 3}, "depth"),
        ({}, "width"),
    ],
)
def test_nonsense_is_refused_naming_the_field(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DenoiserConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"width": 3}', '{"width": 16, "levels": 99}'])
def test_bad_json_is_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="model config") as caught:
        DenoiserConfig.from_json(text)
    assert "\n" not in str(caught.value)


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(ValueError, match="paper, base, edge, tiny, got 'huge'"):
        preset("huge")


def test_config_is_frozen() -> None:
    with pytest.raises(ValidationError):
        preset("tiny").width = 4  # type: ignore[misc]


def test_widths_and_growths() -> None:
    assert preset("edge").widths == (16, 32, 64, 128, 256)
    assert preset("edge").growths == (8, 16, 32, 64, 128)
    assert preset("paper").growths == preset("paper").widths
    assert DenoiserConfig(width=6, levels=2, widening="constant").widths == (6, 6, 6)


def test_each_choice_without_integer_form_is_named() -> None:
    choices = {
        "skip": ("module", "literal"),
        "residual": ("literal",),
        "upsampling": ("transposed", "nearest"),
        "subtraction": (False,),
    }
    assert set(choices) == set(LOWERABLE)
    for name, value in itertools.chain.from_iterable(
        ((name, value) for value in values) for name, values in choices.items()
    ):
        config = DenoiserConfig(width=8, growth="full", **{name: value})
        assert config.not_lowerable == (f"{name}={value}",)
