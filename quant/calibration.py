"""Calibration: the gain of every channel and the exponent of every buffer.

A channel may be multiplied by any positive gain where it is made and divided by it where it is
read: the float function stays, the step that rounds it moves (cross-layer equalisation, Nagel et
al. 2019, through ReLU; here through joins too, where the channels that are added share a gain).
Gains and exponents are chosen together, by least squared rounding error as the output sees it: each
channel's error counts by its squared gradient, each image by the inverse of the error that the
float network leaves on it, so the sum is the relative loss and images of little noise do not drown.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quant import contract
from quant.contract import Op
from quant.integer_graph import IMAGE, View
from quant.modules import QuantDenoisingNetwork
from quant.topology import Topology, buffer_shapes, layer_shapes

Float64Array = npt.NDArray[np.float64]
Batch = tuple[Tensor, Tensor]
"""Noisy and clean images [N, 3, H, W] in the network's units; the noisy ones are whole pixels."""

Ranges = Literal["output", "local"]

STEPS_PER_OCTAVE = 4
FINEST, COARSEST = -24, 8  # exponents of two of the candidate steps
STEPS: Float64Array = np.exp2(
    np.arange(FINEST * STEPS_PER_OCTAVE, COARSEST * STEPS_PER_OCTAVE + 1) / STEPS_PER_OCTAVE
)
SPAN = 8  # how far, in octaves, the steps of buffers whose channels are added may lie apart
GAIN_OCTAVES = 6  # a gain lies within 2^-6..2^6
POSITIONS = 1024  # about as many of an image's positions are looked at
DECIBELS = 10 / math.log(10)  # of a small relative error
LEAST_ERROR = 1e-6  # mean square of what the float network leaves: a seventh of a grey level


@dataclass(frozen=True)
class Calibration:
    """For all buffers but the image.

    gains: buffer -> float64 [channels]; exponents: buffer -> exponent. errors: buffer -> what the
    curves foresee of its rounding alone; of the output's error, 0.01 is 0.043 dB.
    """

    gains: Mapping[str, Float64Array]
    exponents: Mapping[str, int]
    errors: Mapping[str, float]


def error_curves(
    quantised: QuantDenoisingNetwork,
    batches: Iterable[Batch],
    ranges: Ranges = "output",
    seed: int = 0,
) -> dict[str, Float64Array]:
    """Buffer -> [len(STEPS), channels]: what rounding a channel by a step costs, mean over images.

    output: the squared error at the network's output, over the one that the float network leaves.
        One random projection of the output per image estimates the squared gradients (Hutchinson).
    local: the mean squared error of the channel itself, all channels alike.
    Activations pass unrounded; the weights' scales must be set.
    """
    generator = torch.Generator().manual_seed(seed)
    bits = {name: quantiser.bits for name, quantiser in quantised.quantisers()}
    curves: dict[str, list[Float64Array]] = {}
    images = 0
    was_training = quantised.training
    quantised.train()
    for noisy, clean in batches:
        seen: list[tuple[str, Tensor]] = []

        def observe(name: str, values: Tensor, seen: list[tuple[str, Tensor]] = seen) -> None:
            values.retain_grad()
            seen.append((name, values))

        with torch.enable_grad(), quantised.observing(observe):
            output = quantised(noisy)
            left = (output - clean).detach().square().mean((1, 2, 3), keepdim=True)
            direction = torch.randn(output.shape, generator=generator)
            scale = (left.clamp_min(LEAST_ERROR) * output[0].numel()).sqrt()
            (output * direction / scale).sum().backward()
        images += len(noisy)
        members: dict[str, list[Float64Array]] = {}
        for name, values in seen:
            sensitivity = torch.ones(values.shape[:2], dtype=torch.float64)
            if ranges == "output":
                assert values.grad is not None
                sensitivity = values.grad.double().square().sum((2, 3))
            members.setdefault(name, []).append(
                _error_curve(values.detach(), sensitivity, bits[name])
            )
        for name, parts in members.items():
            curves.setdefault(name, []).append(np.concatenate(parts, axis=1))
    quantised.zero_grad(set_to_none=True)
    quantised.train(was_training)
    return {name: np.sum(parts, axis=0) / images for name, parts in curves.items()}


def _error_curve(values: Tensor, sensitivity: Tensor, bits: int) -> Float64Array:
    """[len(STEPS), C] of an activation [N, C, H, W]; sensitivity: [N, C]."""
    height, width = values.shape[2:]
    stride = int((height * width / POSITIONS) ** 0.5) | 1  # odd: every phase of a pixel shuffle
    sample = values[:, :, ::stride, ::stride].flatten(2).double()
    low, high = contract.activation_range(bits)
    curve = [
        ((sample - rounded(sample, float(step), low, high)).square().mean(2) * sensitivity).sum(0)
        for step in STEPS
    ]
    return torch.stack(curve).numpy()


def rounded(values: Tensor, step: float, low: int, high: int) -> Tensor:
    """clamp(floor(v / step + 1/2), low, high) * step."""
    return torch.clamp(torch.floor(values / step + 0.5), low, high) * step


def choose(
    topology: Topology, curves: Mapping[str, Float64Array], *, equalise: bool = True
) -> Calibration:
    """Gains and exponents of least summed error; without `equalise` every gain is 1.

    The first channels of all buffers of a level, as many as the level is wide, are added to one
    another by fuse, up and second, and share their gains; what a dense block adds is free.
    """
    gains = {name: np.ones(curve.shape[1]) for name, curve in curves.items()}
    if not equalise:
        octaves = range(0, len(STEPS), STEPS_PER_OCTAVE)
        sums = {name: curve[octaves].sum(1) for name, curve in curves.items()}
        return Calibration(
            gains,
            {name: -FINEST - int(total.argmin()) for name, total in sums.items()},
            {name: float(total.min()) for name, total in sums.items()},
        )
    exponents: dict[str, int] = {}
    for level, width in enumerate(topology.widths):
        names = [name for name, _, at in buffer_shapes(topology) if at == level and name in curves]
        shared = [curves[name][:, :width] for name in names]
        offsets = _offsets(shared)
        free = [curves[name][:, width:] for name in names]
        total = _shifted_sum(shared, offsets)
        exponent = _common_exponent(total, free, offsets)
        for name, own, offset in zip(names, free, offsets, strict=True):
            exponents[name] = exponent - offset
            gains[name][:width] = _gains(total, exponent)
            gains[name][width:] = _gains(own, exponents[name])
    errors = {name: _error(curves[name], gains[name], exponents[name]) for name in exponents}
    return Calibration(gains, exponents, errors)


def _error(curve: Float64Array, gains: Float64Array, exponent: int) -> float:
    """Of the steps 2^-exponent / gain; infinite where one is not in STEPS."""
    octaves = -exponent - np.log2(gains)
    index = np.rint((octaves - FINEST) * STEPS_PER_OCTAVE).astype(int)
    inside = (index >= 0) & (index < len(curve))
    found = curve[index.clip(0, len(curve) - 1), np.arange(curve.shape[1])]
    return float(np.where(inside, found, np.inf).sum())


def _offsets(curves: list[Float64Array]) -> list[int]:
    """By how many octaves each buffer's step exceeds the first one's, by coordinate descent."""
    offsets = [0] * len(curves)
    least = _least(curves, offsets)
    improved = True
    while improved:
        improved = False
        for index, offset in itertools.product(range(1, len(curves)), range(-SPAN, SPAN + 1)):
            tried = [*offsets[:index], offset, *offsets[index + 1 :]]
            if (error := _least(curves, tried)) < least:
                offsets, least, improved = tried, error, True
    return offsets


def _least(curves: list[Float64Array], offsets: list[int]) -> float:
    return float(_shifted_sum(curves, offsets).min(0).sum())


def _shifted_sum(curves: list[Float64Array], offsets: list[int]) -> Float64Array:
    """[len(STEPS), C], infinite where a buffer's step would leave STEPS."""
    total = np.zeros_like(curves[0])
    for curve, offset in zip(curves, offsets, strict=True):
        total += _shifted(curve, offset * STEPS_PER_OCTAVE)
    return total


def _shifted(curve: Float64Array, steps: int) -> Float64Array:
    """Row i is the curve's row i + steps, or infinite where there is none."""
    rows = np.arange(len(curve)) + steps
    inside = (rows >= 0) & (rows < len(curve))
    return np.where(inside[:, None], curve[rows.clip(0, len(curve) - 1)], np.inf)


def _common_exponent(total: Float64Array, free: list[Float64Array], offsets: list[int]) -> int:
    """The exponent at which the gains' limit costs least; of those, the one nearest to the middle.

    The middle is the median channel's best step: gains stay around 1.
    """
    alive = _alive(total)
    best = np.log2(STEPS[total.argmin(0)])
    middle = -round(float(np.median(best[alive] if alive.any() else best)))

    def cost(exponent: int) -> tuple[float, int]:
        parts = [(total, exponent)]
        parts += [(own, exponent - offset) for own, offset in zip(free, offsets, strict=True)]
        error = sum(_error(curve, _gains(curve, at), at) for curve, at in parts)
        return error, abs(exponent - middle)

    return min(range(middle - GAIN_OCTAVES, middle + GAIN_OCTAVES + 1), key=cost)


def _gains(curve: Float64Array, exponent: int) -> Float64Array:
    """What brings each channel's best step to 2^-exponent; 1 for a channel that is always 0."""
    gain = 2.0**-exponent / STEPS[curve.argmin(0)]
    limit = 2.0**GAIN_OCTAVES
    return np.where(_alive(curve), np.clip(gain, 1 / limit, limit), 1.0)


def _alive(curve: Float64Array) -> npt.NDArray[np.bool_]:
    """[C]: false for a channel that is always 0, which no step can harm."""
    alive: npt.NDArray[np.bool_] = np.any(np.where(np.isfinite(curve), curve, 0), axis=0)
    return alive


@torch.no_grad()
def apply_gains(quantised: QuantDenoisingNetwork, gains: Mapping[str, Float64Array]) -> None:
    """Scale what makes each channel, and inversely what reads it; the float function stays."""
    for shape in layer_shapes(quantised.topology):
        conv = quantised.convolution(shape.name)
        if shape.output is not None:
            made = torch.from_numpy(gains[shape.output.buffer][_channels(shape.output)])
            if shape.op is Op.UP:
                made = made.repeat_interleave(4)
            conv.weight.mul_(made.view(-1, 1, 1, 1))
            conv.bias.mul_(made)
        if shape.input.buffer != IMAGE:
            read = torch.from_numpy(gains[shape.input.buffer][_channels(shape.input)])
            conv.weight.div_(read.view(1, -1, 1, 1))


def _channels(view: View) -> slice:
    return slice(view.offset, view.end)
