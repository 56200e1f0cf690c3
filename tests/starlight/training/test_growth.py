"""Growth keeps the function, carries what was learned, and its new weights learn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from starlight.models import DenoiserConfig, DenoisingNetwork
from starlight.training.growth import Growth


@st.composite
def growths(draw: st.DrawFn) -> tuple[DenoiserConfig, DenoiserConfig]:
    """A small network and a larger one that keeps its function."""
    residual = draw(st.sampled_from(["output", "literal"]))
    growth = draw(st.sampled_from(["full"] if residual == "literal" else ["half", "full"]))
    levels = draw(st.integers(1, 2))
    skips = ["post_up", "module"] + ["literal"] * (levels > 1)
    choices = {
        "skip": draw(st.sampled_from(skips)),
        "residual": residual,
        "upsampling": draw(st.sampled_from(["pixel_shuffle", "transposed", "nearest"])),
        "subtraction": draw(st.booleans()),
    }
    widening = draw(st.sampled_from(["constant", "doubling"]))
    width = draw(st.sampled_from([2, 4]))
    old = DenoiserConfig(width=width, levels=levels, widening=widening, growth=growth, **choices)
    new = DenoiserConfig(
        width=width + draw(st.sampled_from([0, 2])),
        levels=levels + (draw(st.integers(0, 2)) if choices["skip"] != "module" else 0),
        widening=draw(st.sampled_from(["doubling", widening])),
        growth=draw(st.sampled_from(["full", growth])),
        **choices,
    )
    return old, new


def network(config: DenoiserConfig, seed: int) -> DenoisingNetwork:
    """Not as initialised: every weight, bias and moment has a value of its own."""
    torch.manual_seed(seed)
    made = DenoisingNetwork(config).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def grown(growth: Growth, old: DenoisingNetwork) -> DenoisingNetwork:
    torch.manual_seed(1)
    new = DenoisingNetwork(growth.new).double()
    new.load_state_dict(growth.grown(old.state_dict(), new.state_dict()))
    return new


@given(growths(), st.integers(0, 2**31))
def test_output_is_the_same_before_and_after(
    configs: tuple[DenoiserConfig, DenoiserConfig], seed: int
) -> None:
    if configs[0] == configs[1]:
        with pytest.raises(ValueError, match="must differ"):
            Growth(*configs)
        return
    growth = Growth(*configs)
    assert growth.keeps_function
    old = network(configs[0], seed)
    image = 2 * torch.rand(1, 3, 16, 16, dtype=torch.float64) - 1
    with torch.no_grad():
        torch.testing.assert_close(grown(growth, old)(image), old(image), rtol=0, atol=1e-11)


def test_new_weights_get_gradients_and_move() -> None:
    old = DenoiserConfig(width=4, levels=1)
    growth = Growth(old, DenoiserConfig(width=6, levels=2))
    new = grown(growth, network(old, 0))
    before = {name: value.clone() for name, value in new.state_dict().items()}
    optimiser = torch.optim.AdamW(new.parameters(), lr=1e-3, weight_decay=0.0)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        noisy = torch.rand(2, 3, 16, 16, generator=generator, dtype=torch.float64)
        optimiser.zero_grad()
        (new(noisy) - noisy.mean()).abs().mean().backward()
        optimiser.step()
    for name, value in new.state_dict().items():
        moved = (value != before[name]).double().mean().item()
        # A channel that its ReLU keeps dark gets no gradient, in this network as in any.
        assert moved > 0.5, (name, moved)


def test_moments_are_carried_to_the_same_weights_and_new_ones_have_none() -> None:
    configs = DenoiserConfig(width=4, levels=1), DenoiserConfig(width=6, levels=2)
    growth = Growth(*configs)
    old = network(configs[0], 0)
    moments = {
        name: torch.arange(1.0, 1 + value.numel()).view_as(value)
        for name, value in old.named_parameters()
    }
    like = dict(DenoisingNetwork(configs[1]).named_parameters())
    carried = growth.moments(moments, like)
    assert sum(value.sum() for value in carried.values()) == sum(
        value.sum() for value in moments.values()
    )
    assert torch.equal(carried["head.weight"][:4], moments["head.weight"])
    assert not carried["head.weight"][4:].any()
    middle = carried["encoder.1.dense.conv1.weight"]  # the old middle: 8 channels become 12
    assert torch.equal(middle[:4, :8], moments["middle.dense.conv1.weight"])
    assert "middle.dense.conv1.weight" not in carried
    # conv2 reads [x, a]: 4 + 2 channels in, 6 + 3 after.
    conv2 = carried["encoder.0.dense.conv2.weight"]
    assert torch.equal(conv2[:2][:, [0, 1, 2, 3, 6, 7]], moments["encoder.0.dense.conv2.weight"])
    assert not conv2[:, [4, 5, 8]].any()


def test_deeper_with_skip_module_is_known_not_to_keep_the_function() -> None:
    old, new = (DenoiserConfig(width=4, levels=levels, skip="module") for levels in (1, 2))
    growth = Growth(old, new)
    assert not growth.keeps_function
    before = network(old, 0)
    after = grown(growth, before)
    assert torch.equal(after.head.weight, before.head.weight)  # weights are carried all the same
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    assert not torch.allclose(after(image), before(image))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 2}, r"widths must not shrink from \(4, 8, 16\), got \(2, 4, 8\)"),
        ({"levels": 1}, "levels must not shrink from 2, got 1"),
        ({"widening": "constant"}, "widths must not shrink"),
        ({"skip": "module"}, "skip must stay 'post_up', got 'module'"),
        ({}, "config must differ from before"),
    ],
)
def test_what_is_no_growth_is_refused(change: dict[str, object], message: str) -> None:
    old = DenoiserConfig(width=4, levels=2)
    with pytest.raises(ValueError, match=message):
        Growth(old, DenoiserConfig(**(old.model_dump() | change)))  # type: ignore[arg-type]
