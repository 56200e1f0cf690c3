"""Float model -> quantised model: weights carried over, exponents calibrated and kept in range."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from quant import contract
from quant.calibration import Batch, Calibration, Ranges, apply_gains, choose, error_curves, rounded
from quant.integer_graph import IMAGE
from quant.modules import QuantDenoisingNetwork, weight_scale
from quant.multipliers import set_integers
from quant.precision import Precision
from quant.quantizers import DyadicScale
from quant.topology import layer_shapes
from starlight.models.denoiser import DenoisingNetwork

WEIGHT_EXPONENTS = range(contract.WEIGHT_EXPONENT_MIN, contract.WEIGHT_EXPONENT_MAX + 1)


def convert(
    network: DenoisingNetwork,
    batches: Iterable[Batch],
    precision: Precision | None = None,
    *,
    ranges: Ranges = "output",
    equalise: bool = True,
) -> QuantDenoisingNetwork:
    """`calibrate` without what it foresees."""
    return calibrate(network, batches, precision, ranges=ranges, equalise=equalise)[0]


@torch.no_grad()
def calibrate(
    network: DenoisingNetwork,
    batches: Iterable[Batch],
    precision: Precision | None = None,
    *,
    ranges: Ranges = "output",
    equalise: bool = True,
) -> tuple[QuantDenoisingNetwork, Calibration]:
    """A calibrated quantised copy of a float network, post-training quantisation; what was chosen.

    batches: (noisy, clean), both [N, 3, H, W] in the network's units, the noisy ones whole pixels,
    of the kind that the network will see (all gains and sigmas). At least one.
    precision: arithmetic and bits; 8 bits and dyadic unless told.
    ranges: whose error is least, the output's or each channel's own (`quant.calibration`).
    equalise: give channels gains; without, exponents alone are chosen.
    """
    quantised = QuantDenoisingNetwork(network.config, precision)
    _carry_weights(network, quantised)
    set_weight_exponents(quantised)
    curves = error_curves(quantised, batches, ranges)
    calibration = choose(quantised.topology, curves, equalise=equalise)
    apply_gains(quantised, calibration.gains)
    set_weight_exponents(quantised)
    for name, quantiser in quantised.quantisers():
        quantiser.scale.exponent.fill_(calibration.exponents[name])
    project(quantised)
    return quantised.train(network.training), calibration


def _carry_weights(network: DenoisingNetwork, quantised: QuantDenoisingNetwork) -> None:
    """Parameters have the same names but for the upsampling convolution, `up.conv` there."""
    source = {
        name.replace(".up.conv.", ".up."): value for name, value in network.state_dict().items()
    }
    target = dict(quantised.named_parameters())
    for name, value in source.items():
        target[name].copy_(value)


def set_weight_exponents(quantised: QuantDenoisingNetwork) -> None:
    for shape in layer_shapes(quantised.topology):
        conv = quantised.convolution(shape.name)
        exponent = weight_scale(conv).exponent
        best = best_weight_exponent(conv.weight, conv.weight_bits)
        exponent.copy_(best.view_as(exponent))


def best_weight_exponent(weight: Tensor, bits: int = contract.WEIGHT_BITS) -> Tensor:
    """The exponent of least squared error per output channel, [O] of a weight [O, I, k, k]."""
    flat = weight.detach().double().flatten(1)
    limit = contract.weight_limit(bits)
    errors = torch.stack(
        [
            (flat - rounded(flat, 2.0**-exponent, -limit, limit)).square().sum(1)
            for exponent in WEIGHT_EXPONENTS
        ]
    )
    return errors.argmin(0).to(weight.dtype) + WEIGHT_EXPONENTS.start


def buffer_exponents(quantised: QuantDenoisingNetwork) -> dict[str, float]:
    """Buffer name -> the exponent in use, the image's included; integers when dyadic."""
    exponents = {name: q.scale.in_use.item() for name, q in quantised.quantisers()}
    if quantised.precision.dyadic:
        exponents = {name: int(exponent) for name, exponent in exponents.items()}
    return {IMAGE: contract.IMAGE_EXPONENT, **exponents}


@torch.no_grad()
def project(quantised: QuantDenoisingNetwork) -> None:
    """Bring every exponent to where shifts and joins are within the contract's ranges.

    Activation exponents into their own range; then weight exponents so that e_x + e_w - e_y is
    in SHIFT_MIN..SHIFT_MAX and, at a join, e_x + e_w - e_r in JOIN_SHIFT_MIN..JOIN_SHIFT_MAX.
    Multipliers need neither: there exponents go into their own ranges alone.
    """
    for _, quantiser in quantised.quantisers():
        quantiser.scale.exponent.clamp_(quantiser.scale.low, quantiser.scale.high)
    if not quantised.precision.dyadic:
        for shape in layer_shapes(quantised.topology):
            scale = weight_scale(quantised.convolution(shape.name))
            scale.exponent.clamp_(scale.low, scale.high)
        return
    exponents = buffer_exponents(quantised)
    for shape in layer_shapes(quantised.topology):
        entering = exponents[shape.input.buffer]
        leaving = exponents[shape.output.buffer] if shape.output else contract.IMAGE_EXPONENT
        low = max(contract.WEIGHT_EXPONENT_MIN, contract.SHIFT_MIN + leaving - entering)
        high = min(contract.WEIGHT_EXPONENT_MAX, contract.SHIFT_MAX + leaving - entering)
        if shape.join:
            joining = exponents[shape.join.buffer]
            low = max(low, contract.JOIN_SHIFT_MIN + joining - entering)
            high = min(high, contract.JOIN_SHIFT_MAX + joining - entering)
        weight_scale(quantised.convolution(shape.name)).exponent.clamp_(low, high)


def frozen(quantised: QuantDenoisingNetwork) -> QuantDenoisingNetwork:
    """A float64 copy in eval mode that computes what the integer graph does: what lowering reads.

    Dyadic: its exponents are integers. Multiplier: its layers have `integers`, and activations are
    whole numbers. Raises ValueError, naming layer and channel, for what multipliers cannot say.
    """
    copied = copy.deepcopy(quantised).double().eval()
    with torch.no_grad():
        if not copied.precision.dyadic:
            set_integers(copied)
            return copied
        for module in copied.modules():
            if isinstance(module, DyadicScale):
                module.exponent.copy_(module.in_use)
    return copied
