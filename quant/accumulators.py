"""Weights held to an accumulator width: the proven bound of every channel stays below 2^(bits-1).

The bound is linear in the magnitudes of a channel's integer weights, so the channels beyond it are
projected onto the l1 ball that the width leaves room for (A2Q: Colbert, Pappalardo, Petri-Koenig,
ICCV 2023, normalises to the same ball). After every step of training, it is a constraint that the
network learns to live with; alone, it is a cut.
"""

import torch
from torch import Tensor

from quant import contract
from quant.convert import buffer_exponents
from quant.modules import QuantDenoisingNetwork, weight_scale
from quant.topology import LayerShape, layer_shapes


@torch.no_grad()
def limit_accumulators(quantised: QuantDenoisingNetwork, bits: int) -> int:
    """Bring every accumulator bound within `bits`; returns how many channels were beyond it.

    A channel whose bias, join and rounding half alone leave no room gets coarser weights, an
    exponent at a time. Raises ValueError, naming layer and channel, where no exponent helps.
    """
    exponents = buffer_exponents(quantised)
    return sum(
        _limit_layer(quantised, shape, exponents, bits)
        for shape in layer_shapes(quantised.topology)
    )


def _limit_layer(
    quantised: QuantDenoisingNetwork, shape: LayerShape, exponents: dict[str, float], bits: int
) -> int:
    conv = quantised.convolution(shape.name)
    scale = weight_scale(conv)
    magnitude = float(1 << quantised.precision.buffer(shape.input.buffer) - 1)
    while True:
        step = scale(conv.weight).detach().flatten().double()
        room = _room(quantised, shape, exponents, step, bits) / magnitude
        narrow = room < 1
        if not narrow.any():
            break
        lowest = scale.exponent.flatten() <= contract.WEIGHT_EXPONENT_MIN
        if (narrow & lowest).any():
            channel = int((narrow & lowest).nonzero()[0])
            raise ValueError(
                f"layer {shape.name}, channel {channel}: accumulator must have room for weights "
                f"beside bias, join and rounding, got {bits} bits"
            )
        scale.exponent.sub_(narrow.view_as(scale.exponent).to(scale.exponent.dtype))
    rows = conv.weight.flatten(1).double() / step[:, None]
    beyond = _rounded_sums(rows) > room
    if beyond.any():
        kept = within_ball(rows[beyond], room[beyond])
        cut = (kept * step[beyond, None]).to(conv.weight.dtype)
        conv.weight[beyond] = cut.unflatten(1, conv.weight.shape[1:])
    return int(beyond.sum())


def _room(
    quantised: QuantDenoisingNetwork,
    shape: LayerShape,
    exponents: dict[str, float],
    step: Tensor,
    bits: int,
) -> Tensor:
    """What a width leaves for sum |q_x q_w|, [O]; the other terms are those of the proof."""
    unit = step * 2.0 ** -exponents[shape.input.buffer]  # of the accumulator
    bias = quantised.convolution(shape.name).bias
    assert bias is not None
    room = 2.0 ** (bits - 1) - 1 - torch.floor(bias.double() / unit + 0.5).abs()
    if not quantised.precision.dyadic:
        return room
    if shape.join is not None:
        joined = float(1 << quantised.precision.buffer(shape.join.buffer) - 1)
        room -= joined * 2.0 ** -exponents[shape.join.buffer] / unit
    leaving = exponents[shape.output.buffer] if shape.output else contract.IMAGE_EXPONENT
    return room - 2.0**-leaving / unit / 2


def _rounded_sums(rows: Tensor) -> Tensor:
    return torch.floor(rows + 0.5).abs().sum(1)


def within_ball(rows: Tensor, radius: Tensor) -> Tensor:
    """The nearest rows whose sum of rounded magnitudes is at most `radius`.

    rows: [O, N] float64; radius: [O], at least 1. The threshold of Duchi et al., ICML 2008, on a
    radius that shrinks until rounding, floor(w + 1/2), leaves no excess.
    """
    wanted = radius.clone()
    while True:
        kept = torch.sign(rows) * (rows.abs() - _threshold(rows, wanted)[:, None]).clamp_min(0)
        excess = _rounded_sums(kept) - radius
        if (excess <= 0).all():
            return kept
        wanted = (wanted - excess.clamp_min(0).ceil()).clamp_min(0)


def _threshold(rows: Tensor, radius: Tensor) -> Tensor:
    """What to take off every magnitude so that they sum to the radius; 0 where they are less."""
    ordered = rows.abs().sort(dim=1, descending=True).values
    surplus = ordered.cumsum(1) - radius[:, None]
    counts = torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype)
    used = (ordered > surplus / counts).sum(1).clamp_min(1)
    return (surplus.gather(1, used[:, None] - 1)[:, 0] / used).clamp_min(0)
